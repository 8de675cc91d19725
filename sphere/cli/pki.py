"""`sphere pki ...`: the certificates of a cluster on real machines."""

import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import click

from common.errors import Terminal
from sphere import topology

NODE_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
"""DNS subdomain (RFC 1123), as the API wants it; it becomes a part of file names, too."""


@click.group()
def pki() -> None:
    """Issue the certificates of a cluster on real machines."""


@pki.command("issue")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--control",
    metavar="[NAME=]ADDR",
    multiple=True,
    required=True,
    help="A machine of the control plane: API, etcd, broker. May be repeated; the first is the kubeconfig's server.",
)
@click.option("--host", "hosts", metavar="NAME=ADDR", multiple=True, required=True, help="A host. May be repeated.")
@click.option("--service-cidr", default=str(topology.SERVICE_CIDR), show_default=True, help="Range of service IPs.")
@click.option("--domain", default=topology.CLUSTER_DOMAIN, show_default=True, help="The cluster's DNS domain.")
def issue(directory: Path, control: tuple[str, ...], hosts: tuple[str, ...], service_cidr: str, domain: str) -> None:
    """Make the authority in DIRECTORY if there is none, and every identity that is missing or does not fit.

    Run again, it keeps what fits: to add a host, name it beside the others. An admin's kubeconfig is written, too.
    Keep DIRECTORY secret and safe: whoever has ca.key is the cluster's administrator.

    \b
    Examples:
      sphere pki issue pki --control control=192.0.2.2 --host host-1=192.0.2.11 --host host-2=192.0.2.12
    """
    from sphere.api import write_kubeconfig_file
    from sphere.pki import ensure, identities_of

    control_machines = [_machine(one if "=" in one else f"control={one}", "--control") for one in control]
    try:
        kubernetes_service = IPv4Network(service_cidr)[1]
    except (ValueError, IndexError) as err:
        raise Terminal(f"--service-cidr {service_cidr}: {err}; give a network such as 10.96.0.0/16") from err
    wanted = identities_of(
        control=control_machines,
        hosts=_unique([_machine(one, "--host") for one in hosts]),
        kubernetes_service=str(kubernetes_service),
        domain=domain,
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = ensure(directory, wanted)
    kubeconfig = directory / "kubeconfig"
    if made or not kubeconfig.exists():
        write_kubeconfig_file(kubeconfig, directory, f"https://{control_machines[0][1]}:{topology.API_PORT}")
    click.echo("changed: " + " ".join(made) if made else "unchanged")


def _machine(text: str, option: str) -> tuple[str, str]:
    name, separator, address = text.partition("=")
    if not separator or not name:
        raise Terminal(f"{option} {text}: give NAME=ADDRESS, such as host-1=192.0.2.11")
    if not NODE_NAME.fullmatch(name):
        raise Terminal(
            f"{option} {text}: {name!r} is no name of a node; give lower case letters, digits, '-' and '.', "
            "as in host-1 or rack2.host-1"
        )
    try:
        return name, str(IPv4Address(address))
    except ValueError as err:
        raise Terminal(f"{option} {text}: {err}; give NAME=ADDRESS with an IPv4 address") from err


def _unique(machines: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for position, what in enumerate(("name", "address")):
        values = [machine[position] for machine in machines]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise Terminal(f"--host: {what} {', '.join(twice)} is given twice; hosts need names and addresses apart")
    return machines

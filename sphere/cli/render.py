"""`sphere render ...`: config files of foreign programs, for ansible's roles. The one-machine cluster has its own way.

Each command prints ``changed`` or ``unchanged``, so that a role knows whether to restart. Files appear whole.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import click

from common.errors import Terminal
from sphere import topology

FOLDER = click.Path(path_type=Path, file_okay=False)
into_option = click.option("--into", type=FOLDER, required=True, help="Folder of the files; must exist.")


@dataclass(frozen=True)
class File:
    """One file as it shall be. ``initial`` leaves the content of an existing one alone: it carries state."""

    path: Path
    text: str
    mode: int = 0o644
    owner: str = "root"
    initial: bool = False


@click.group()
def render() -> None:
    """Write config files of the programs that a host or the broker runs; print `changed` or `unchanged`."""


@render.command("broker")
@click.option("--address", required=True, help="Address to listen on.")
@click.option("--port", type=int, default=topology.BROKER_PORT, show_default=True)
@click.option("--pki", type=FOLDER, required=True, help="Folder with ca.crt, broker.crt and broker.key.")
@click.option("--state", type=FOLDER, required=True, help="Where the broker keeps messages and the access list.")
@click.option("--user", default="mosquitto", show_default=True, help="Who the broker runs as and owns its state.")
@into_option
def broker(address: str, port: int, pki: Path, state: Path, user: str, into: Path) -> None:
    """Write mosquitto.conf, and the first access list unless there is one.

    \b
    Examples:
      sphere render broker --address 192.0.2.2 --pki /etc/mosquitto/pki --state /var/lib/mosquitto --into /etc/mosquitto
    """
    import json

    from common import broker as content
    from common.settings import TlsFiles

    access = state / "dynamic-security.json"
    text = content.mosquitto_conf(
        address=address,
        port=port,
        tls=TlsFiles(ca=pki / "ca.crt", cert=pki / "broker.crt", key=pki / "broker.key"),
        state_dir=state,
        dynamic_security=access,
        user=user,
    )
    first = json.dumps(content.initial_dynamic_security(), indent=2)
    _write([File(into / "mosquitto.conf", text), File(access, first, 0o600, user, initial=True)])


@render.command("containerd")
@click.option("--root", type=FOLDER, default="/var/lib/containerd", show_default=True, help="Images and snapshots.")
@click.option("--state", type=FOLDER, default="/run/containerd", show_default=True, help="Socket; lost at reboot.")
@click.option("--registry-hosts", type=FOLDER, default="/etc/containerd/certs.d", show_default=True, help="Mirrors.")
@into_option
def containerd(root: Path, state: Path, registry_hosts: Path, into: Path) -> None:
    """Write config.toml of containerd.

    \b
    Examples:
      sphere render containerd --into /etc/containerd
    """
    from common import containerd_conf

    text = containerd_conf.render(
        root=root, state=state, socket=state / "containerd.sock", registry_hosts=registry_hosts
    )
    _write([File(into / "config.toml", text)])


@render.command("unbound")
@click.option("--address", default=str(topology.DNS_ADDRESS), show_default=True, help="Where pods ask.")
@click.option("--domain", default=topology.CLUSTER_DOMAIN, show_default=True, help="The cluster's DNS domain.")
@click.option("--pod-cidr", default=str(topology.POD_CIDR), show_default=True, help="Pods, which may ask.")
@click.option("--service-cidr", default=str(topology.SERVICE_CIDR), show_default=True)
@click.option("--forward", metavar="ADDR[@PORT]", multiple=True, help="Server for all other names. May be repeated.")
@click.option("--control-socket", type=click.Path(path_type=Path), default="/run/unbound.ctl", show_default=True)
@click.option("--user", default="unbound", show_default=True, help="Whom unbound runs as.")
@into_option
def unbound(
    address: str,
    domain: str,
    pod_cidr: str,
    service_cidr: str,
    forward: tuple[str, ...],
    control_socket: Path,
    user: str,
    into: Path,
) -> None:
    """Write unbound.conf.

    \b
    Examples:
      sphere render unbound --address 10.96.0.10 --forward 192.0.2.53 --into /etc/unbound
    """
    from common.unbound import unbound_conf

    try:
        text = unbound_conf(
            dns_address=address,
            control_socket=control_socket,
            pid_file=Path("/run/unbound.pid"),
            pod_cidr=pod_cidr,
            service_cidr=service_cidr,
            domain=domain,
            forwarders=forward,
            user=user,
        )
    except ValueError as err:
        raise Terminal(f"{err}; give IPv4 addresses and networks") from err
    _write([File(into / "unbound.conf", text)])


@render.command("prometheus")
@click.option("--control", "controllers", metavar="NAME=ADDR", multiple=True, required=True, help="May be repeated.")
@click.option("--host", "hosts", metavar="NAME=ADDR", multiple=True, help="A host. May be repeated.")
@click.option("--etcd", metavar="NAME=ADDR:PORT", multiple=True, help="etcd's plain HTTP metrics. May be repeated.")
@click.option("--pki", type=FOLDER, required=True, help="Folder with ca.crt, prometheus.crt and prometheus.key.")
@click.option("--rules", type=click.Path(path_type=Path), multiple=True, help="File of alerts. May be repeated.")
@into_option
def prometheus(
    controllers: tuple[str, ...],
    hosts: tuple[str, ...],
    etcd: tuple[str, ...],
    pki: Path,
    rules: tuple[Path, ...],
    into: Path,
) -> None:
    """Write prometheus.yml.

    \b
    Examples:
      sphere render prometheus --control control=192.0.2.2 --host host-1=192.0.2.11 \\
        --etcd control=127.0.0.1:2381 --pki /etc/prometheus/pki --into /etc/prometheus
    """
    from common import prometheus_conf
    from common.settings import TlsFiles

    text = prometheus_conf.render(
        controllers=_pairs("--control", controllers),
        hosts=_pairs("--host", hosts),
        tls=TlsFiles(ca=pki / "ca.crt", cert=pki / "prometheus.crt", key=pki / "prometheus.key"),
        rules=rules,
        etcd=_pairs("--etcd", etcd),
    )
    _write([File(into / "prometheus.yml", text)])


def _pairs(option: str, values: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        name, separator, address = value.partition("=")
        if not (name and separator and address) or name in found:
            raise Terminal(f"{option} {value}: give NAME=ADDRESS, each name once")
        found[name] = address
    return found


def _write(files: list[File]) -> None:
    changed = [_converge(file) for file in files]
    click.echo("changed" if any(changed) else "unchanged")


def _converge(file: File) -> bool:
    """Make ``file`` as it shall be. True if it was not. Raises ``Terminal`` with cause and cure."""
    try:
        present = file.path.read_text()
    except FileNotFoundError:
        present = None
    try:
        changed = present is None or (present != file.text and not file.initial)
        if changed:
            # Under another name until it is whole; private until it has its owner and mode.
            draft = file.path.with_name(file.path.name + ".new")
            draft.unlink(missing_ok=True)
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
                opened.write(file.text)
            draft.replace(file.path)
        return _converge_access(file) or changed
    except LookupError as err:
        raise Terminal(f"no user {file.owner!r} on this machine; install its package, or pass --user") from err
    except OSError as err:
        raise Terminal(f"cannot write {file.path}: {err.strerror}; the folder must exist, run as root") from err


def _converge_access(file: File) -> bool:
    held = file.path.stat()
    changed = held.st_mode & 0o7777 != file.mode
    if changed:
        file.path.chmod(file.mode)
    if os.geteuid() == 0 and file.path.owner() != file.owner:
        shutil.chown(file.path, user=file.owner)
        changed = True
    return changed

"""`sphere image ...`."""

from pathlib import Path

import click

from sphere import preflight
from sphere.cli.output import output_option, show
from sphere.images import load as loading
from sphere.layout import Layout
from sphere.wanted import present_hosts


@click.group()
def image() -> None:
    """Put container images onto the hosts."""


@image.command("load")
@click.argument("file", type=click.Path(path_type=Path))
def load(file: Path) -> None:
    """Load the docker or OCI archive FILE onto every host.

    \b
    Examples:
      docker save registry.example/app:1 -o app.tar && sphere image load app.tar
    """
    preflight.require_root()
    layout = Layout.default()
    hosts = present_hosts(layout)
    for name in loading.load(layout, file, hosts):
        click.echo(f"{name}: on {len(hosts)} hosts")


@image.command("list")
@output_option
def list_(output: str) -> None:
    """List images and the hosts that have them.

    \b
    Examples:
      sphere image list -o json
    """
    preflight.require_root()
    layout = Layout.default()
    where: dict[str, list[str]] = {}
    for host in present_hosts(layout):
        for name in loading.held(layout, host):
            where.setdefault(name, []).append(host.name)
    show([{"image": name, "hosts": " ".join(hosts)} for name, hosts in sorted(where.items())], output)

"""The `sphere` command. Imports are lazy: `sphere --help` and shell completion must not feel slow."""

import sys
from importlib import import_module
from typing import Any

import click

from common.errors import SphereError

COMMANDS = {
    "up": ("sphere.cli.lifecycle", "Bring a cluster up on this machine, or complete it."),
    "down": ("sphere.cli.lifecycle", "Take the cluster down; nothing is left behind."),
    "status": ("sphere.cli.status", "Show machines, components and nodes."),
    "host": ("sphere.cli.host", "List, enter, stop, start and kill hosts."),
    "image": ("sphere.cli.image", "Put container images onto the hosts."),
    "pki": ("sphere.cli.pki", "Issue the certificates of a cluster on real machines."),
    "render": ("sphere.cli.render", "Write config files of the programs that a host or the broker runs."),
    "completion": ("sphere.cli.completion", "Print the completion script of a shell."),
}
"""Command -> module that defines it, and its line in the help."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sphere")
def cli() -> None:
    """A Kubernetes-compatible cluster with its own network, on plain Linux hosts.

    \b
    Examples:
      sphere up --hosts 3
      export KUBECONFIG=$PWD/run/kubeconfig
      kubectl get nodes
      sphere host exec host-1 -- nft list ruleset
      sphere down
    """


def main() -> Any:
    """Entry point: a failure is one message with its cause and cure, and status 1."""
    try:
        return cli(prog_name="sphere")
    except SphereError as err:
        click.echo(f"sphere: {err}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

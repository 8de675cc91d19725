"""`sphere status`."""

import sys

import click

from sphere import status as inquiry
from sphere.cli.output import output_option, show
from sphere.layout import Layout


@click.command()
@output_option
def status(output: str) -> None:
    """Show every component of every machine.

    Exit status 0 when all run and all nodes are Ready, 1 otherwise.

    \b
    Examples:
      sphere status
      sphere status -o json
    """
    layout = Layout.default()
    rows = inquiry.component_rows(layout)
    show(rows, output)
    if not inquiry.is_healthy(layout, rows):
        if not rows:
            click.echo("no cluster is up; start one with `sphere up`", err=True)
        sys.exit(1)

"""`sphere status`."""

import sys

import click

from sphere import preflight
from sphere.cli.output import output_option, show
from sphere.layout import Layout
from sphere.wanted import read_wanted


@click.command()
@output_option
def status(output: str) -> None:
    """Show every component of every machine.

    Exit status 0 when all run and all nodes are Ready; otherwise 1, and standard error says what is wrong.

    \b
    Examples:
      sphere status
      sphere status -o json
    """
    from sphere import status as inquiry

    layout = Layout.default()
    if read_wanted(layout) is not None:
        preflight.require_root()
    rows = inquiry.component_rows(layout)
    show(rows, output)
    problems = inquiry.problems(layout, rows)
    for line in problems:
        click.echo(line, err=True)
    if problems:
        sys.exit(1)

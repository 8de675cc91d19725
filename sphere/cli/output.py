"""Print rows as a table for people or as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Form of the list."
)


def show(rows: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print ``rows``; their keys, in order, are the columns."""
    if output == "json":
        click.echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        return
    titles = list(rows[0])
    head = [title.upper().replace("_", "-") for title in titles]
    cells = [head, *([_text(row[key]) for key in titles] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    for line in cells:
        click.echo("   ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def _text(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)

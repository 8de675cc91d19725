"""Field numbers of the messages that Go clients send as protobuf; they stand in ``wire_numbers.txt``, which says how.

Types are not there: those are the schemas'. What is missing there is refused with the advice to send JSON.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple


class WireField(NamedTuple):
    """``name`` is JSON's, or ``@Message`` for an embedded one; the zero of a ``plain`` field is left out in JSON."""

    name: str
    plain: bool


@cache
def numbers() -> dict[str, dict[int, WireField]]:
    """Definition name -> field number -> field. Read on the first call (about 5 ms)."""
    found: dict[str, dict[int, WireField]] = {}
    text = Path(__file__).with_suffix(".txt").read_text()
    words = (word for line in text.splitlines() if not line.startswith("#") for word in line.split())
    package = message = ""
    number = 0
    for word in words:
        if word.startswith("["):
            package = word.strip("[]")
        elif word.endswith(":"):
            message, number = f"{package}.{word[:-1]}", 0
            found[message] = {}
        elif word.isdigit():
            number = int(word) - 1
        else:
            number += 1
            found[message][number] = WireField(word.rstrip("?"), word.endswith("?"))
    return found

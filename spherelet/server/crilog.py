"""Container log files: ``<RFC 3339 time> <stdout|stderr> <P|F> <message>`` lines, as conmon writes them. Pure.

``P`` marks a piece of a longer line: the next record of the same stream goes on with it; only ``F`` ends a line.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the file. ``message`` has its newline when the record ends a line."""

    time: bytes
    stream: str
    message: bytes

    @property
    def seconds(self) -> float:
        """Seconds since the epoch; microsecond precision."""
        return _seconds(self.time)


@dataclass(frozen=True, slots=True)
class Selection:
    """What a client asked for. ``since_s`` is seconds since the epoch; ``stream`` empty means both."""

    since_s: float | None = None
    stream: str = ""
    timestamps: bool = False


def parse(line: bytes) -> Record | None:
    """The record in ``line`` (without its newline), or None when it is not one (a torn write)."""
    parts = line.split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr") or parts[2][:1] not in (b"F", b"P"):
        return None
    message = parts[3] if len(parts) == 4 else b""
    whole = parts[2].split(b":")[0] == b"F"
    return Record(parts[0], parts[1].decode(), message + b"\n" if whole else message)


def render(record: Record, selection: Selection) -> bytes:
    """What the client sees of ``record``: empty when it is not selected."""
    if selection.stream and record.stream != selection.stream:
        return b""
    if selection.since_s is not None and record.seconds < selection.since_s:
        return b""
    if not selection.timestamps:
        return record.message
    # conmon writes UTC as an offset; clients know the short form.
    return record.time.replace(b"+00:00", b"Z") + b" " + record.message


def render_lines(lines: Iterable[bytes], selection: Selection) -> Iterator[bytes]:
    """Render every record of ``lines``, leaving out what is not one."""
    for line in lines:
        record = parse(line)
        if record is not None:
            text = render(record, selection)
            if text:
                yield text


def tail_offset(block: bytes, lines: int) -> int:
    """Where the last ``lines`` whole log lines of ``block`` begin, or -1 when it holds fewer.

    ``block`` begins at a record's first byte or in its middle; a line of several ``P`` records and one ``F`` is one.
    """
    if lines <= 0:
        return len(block)
    end = len(block)
    found = 0
    while end > 0:
        begin = block.rfind(b"\n", 0, end - 1) + 1
        record = parse(block[begin:end].rstrip(b"\n"))
        if record is not None and record.message.endswith(b"\n"):
            found += 1
            if found > lines:
                return end
        end = begin
    return -1


def _seconds(stamp: bytes) -> float:
    text = stamp.decode("ascii", "replace")
    head, _, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    zone = rest[digits:] if rest else head[19:]
    fraction = (rest[:digits] + "000000")[:6] if rest else "000000"
    try:
        return datetime.fromisoformat(f"{head[:19]}.{fraction}{zone.replace('Z', '+00:00')}").timestamp()
    except ValueError:
        return 0.0

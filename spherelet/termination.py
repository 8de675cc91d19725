"""Termination messages: what a container left at ``terminationMessagePath``, or the end of its log."""

import os
from pathlib import Path

from spherelet.config import termination_message_bytes_max
from spherelet.model import ContainerState, PodView
from spherelet.server.crilog import parse

LOG_LINES_MAX = 80
LOG_BYTES_MAX = 2048
LOG_TAIL_BYTES = 16 << 10
"""How much of the file is looked at: every line has its time and stream in front."""


def message(pod: PodView, state: ContainerState) -> str:
    """The termination message of an ended container; empty if it left none."""
    text = _tail(state.directory / "termination-log", termination_message_bytes_max)
    container = pod.container(state.name)
    policy = container.spec.get("terminationMessagePolicy") if container is not None else None
    failed = state.exit is not None and state.exit.code != 0
    if text or policy != "FallbackToLogsOnError" or not failed:
        return text
    return _end_of_log(state.log_path)


def _end_of_log(path: Path) -> str:
    """The last lines of a container's log, as it printed them."""
    raw = _tail(path, LOG_TAIL_BYTES).encode()
    records = [record for record in map(parse, raw.split(b"\n")) if record is not None]
    text = b"".join(record.message for record in records).decode("utf-8", "replace")
    return "".join(text.splitlines(keepends=True)[-LOG_LINES_MAX:])[-LOG_BYTES_MAX:]


def _tail(path: Path, size: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""

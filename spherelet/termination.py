"""Termination messages: what a container left at ``terminationMessagePath``, or the end of its log."""

import os
from pathlib import Path

from spherelet.config import termination_message_bytes_max
from spherelet.model import ContainerState, PodView

LOG_LINES_MAX = 80
LOG_BYTES_MAX = 2048


def message(pod: PodView, state: ContainerState) -> str:
    """The termination message of an ended container; empty if it left none."""
    text = _tail(state.directory / "termination-log", termination_message_bytes_max)
    container = pod.container(state.name)
    policy = container.spec.get("terminationMessagePolicy") if container is not None else None
    failed = state.exit is not None and state.exit.code != 0
    if text or policy != "FallbackToLogsOnError" or not failed:
        return text
    raw = _tail(state.log_path, LOG_BYTES_MAX * 2)
    lines = [line.split(" ", 3)[3] for line in raw.splitlines()[-LOG_LINES_MAX:] if line.count(" ") >= 3]
    return "".join(f"{line}\n" for line in lines)[-LOG_BYTES_MAX:]


def _tail(path: Path, size: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - size))
            return file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""

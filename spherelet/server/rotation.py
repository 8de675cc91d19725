"""Rotation of container logs: a file that outgrew its limit is renamed, and conmon is told to open a new one."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from common.clock import Clock
from spherelet.model import ContainerState
from spherelet.server.commands import control

LOG_BYTES_MAX: Final = 10 << 20
LOG_FILES_MAX: Final = 5
"""Kept per container, with the current one; kubelet's defaults both."""
PERIOD_S: Final = 10.0
CONMON_REOPEN: Final = 2


class Rotation:
    """Looks at the logs of running containers now and then: one ``stat`` each."""

    def __init__(self, clock: Clock, running: Callable[[], Iterable[ContainerState]]) -> None:
        self._clock = clock
        self._running = running

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._clock.sleep(PERIOD_S)
            for state in tuple(self._running()):
                rotate(state)


def rotate(state: ContainerState, bytes_max: int = LOG_BYTES_MAX, files_max: int = LOG_FILES_MAX) -> bool:
    """Rotate the container's log if it is over ``bytes_max``: ``log.1`` is the newest old one. True if it was."""
    path = state.log_path
    try:
        if path.stat().st_size <= bytes_max:
            return False
        for number in range(files_max - 1, 0, -1):
            older = _numbered(path, number)
            newer = _numbered(path, number - 1) if number > 1 else path
            if newer.exists():
                os.replace(newer, older)
    except OSError:
        return False  # the container went away meanwhile
    control(state, CONMON_REOPEN)
    return True


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")

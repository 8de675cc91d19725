"""An event loop whose time is virtual: when nothing is ready it jumps to the next timer instead of sleeping.

A run that depends only on its seed replays exactly. Real sockets do not belong in it: waiting for one would wait
for ever, so the loop raises ``Deadlock`` when there is neither a ready callback nor a timer.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(AssertionError):
    """Nothing can ever happen again, yet somebody still waits."""


class _JumpingSelector(selectors.SelectSelector):
    """Reports no events; asks the loop to advance its clock by the time it would have slept."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("no callback is ready and no timer is set")
        self.jumped_s += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` starts at 0 and moves only when the loop would otherwise sleep."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.jumped_s


EPOCH_S = 1_750_000_000.0
"""Wall time at virtual time 0: any fixed instant will do."""


class VirtualClock:
    """``common.clock.Clock`` on the running virtual loop."""

    def now(self) -> float:
        return EPOCH_S + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)

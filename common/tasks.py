"""Structured concurrency: wake-ups that coalesce, workers that are serial per key, backoff.

Callbacks only mark dirty (``Wake.set``, ``KeyQueue.add``); loops run at their own pace.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger

K = TypeVar("K", bound=Hashable)
log = logger("tasks")


class Wake:
    """A coalescing signal: any number of ``set`` calls before ``wait`` returns cause one wake-up."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a signal and consume it. False if ``timeout_s`` passed first."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return False
        self._event.clear()
        return True


def backoff_s(failures: int, *, base_s: float = 0.05, cap_s: float = 30.0) -> float:
    """Exponential delay after ``failures`` consecutive failures (1 -> base). Jitter is the caller's."""
    return min(cap_s, base_s * 2.0 ** min(64, max(0, failures - 1)))  # beyond it a float overflows


class KeyQueue(Generic[K]):
    """Dirty keys with one serial worker per key and a bounded number of workers.

    A key added while it is being worked on is worked on again afterwards. A worker that raises
    ``Retryable`` is retried with backoff; a worker may return seconds after which it wants to run again.
    Any other exception ends ``run`` (a bug: the process restarts).
    """

    def __init__(self, clock: Clock, workers_max: int = 16) -> None:
        self._clock = clock
        self._dirty: dict[K, None] = {}
        self._active: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.Task[None]] = {}
        self._wake = Wake()
        self._slots = asyncio.Semaphore(workers_max)

    def __len__(self) -> int:
        return len(self._dirty) + len(self._active)

    def add(self, key: K) -> None:
        self._dirty[key] = None
        self._wake.set()

    async def run(self, work: Callable[[K], Awaitable[float | None]]) -> None:
        """Work on keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                ready = [key for key in self._dirty if key not in self._active]
                if not ready:
                    await self._wake.wait()
                    continue
                for key in ready:
                    await self._slots.acquire()
                    del self._dirty[key]
                    self._active.add(key)
                    group.create_task(self._one(group, key, work))

    async def _one(self, group: asyncio.TaskGroup, key: K, work: Callable[[K], Awaitable[float | None]]) -> None:
        again_s: float | None = None
        try:
            again_s = await work(key)
            self._failures.pop(key, None)
        except Retryable as err:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            again_s = backoff_s(failures)
            log.info("will retry", object=str(key), reason=str(err), seconds=again_s)
        finally:
            self._active.discard(key)
            self._slots.release()
            self._wake.set()
        old = self._timers.pop(key, None)
        if old is not None:
            old.cancel()
        if again_s is not None:
            self._timers[key] = group.create_task(self._later(key, again_s))

    async def _later(self, key: K, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timers.pop(key, None)
        self.add(key)

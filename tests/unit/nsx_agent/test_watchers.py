"""Watching costs nothing while somebody else is waited for."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from nsx_agent.watchers import watch_routes, watch_table


class Pipe:
    """Notifications as bytes; counts how often it was read."""

    def __init__(self) -> None:
        self._end, self._other = os.pipe()
        os.set_blocking(self._end, False)
        self.reads = 0

    def fileno(self) -> int:
        return self._end

    def tell(self, what: int) -> None:
        os.write(self._other, bytes((what,)))

    def read(self) -> set[int]:
        self.reads += 1
        try:
            return set(os.read(self._end, 4096))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        os.close(self._end)
        os.close(self._other)


class HeldClock:
    """Sleeps end when they are let."""

    def __init__(self) -> None:
        self.asleep = asyncio.Event()
        self.go = asyncio.Event()

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await self.go.wait()
        self.go.clear()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


async def turns(number: int) -> None:
    """Let the event loop go round."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_table_is_not_read_again_and_again_while_nft_runs(pipe: Pipe) -> None:
    running, drifts = asyncio.Event(), []

    async def is_own(process: int) -> bool:
        await running.wait()
        return process == 1

    task = asyncio.create_task(watch_table(pipe, pipe.read, is_own, lambda: drifts.append(1)))  # noqa: TID251
    await turns(3)
    for who in (1, 2, 1):
        pipe.tell(who)
        await turns(100)
    assert pipe.reads <= 3
    assert drifts == []
    running.set()
    await turns(10)
    assert drifts == [1]
    task.cancel()


async def test_reasons_are_gathered_while_the_first_one_settles(pipe: Pipe) -> None:
    clock, looks = HeldClock(), []

    def read() -> set[str]:
        return {f"reason {number}" for number in pipe.read()}

    task = asyncio.create_task(  # noqa: TID251
        watch_routes(pipe, read, lambda reason: reason != "reason 1", lambda: looks.append(1), clock)
    )
    await turns(3)
    pipe.tell(1)
    await clock.asleep.wait()
    clock.go.set()
    await turns(10)
    assert looks == [], "it does not matter any more"
    clock.asleep.clear()
    pipe.tell(2)
    await clock.asleep.wait()
    pipe.tell(3)
    await turns(100)
    assert pipe.reads <= 3
    clock.go.set()
    await turns(10)
    assert looks == [1]
    task.cancel()

"""KeyQueue: serial per key, nothing lost, retried with backoff."""

import asyncio

import pytest

from common.clock import SystemClock
from common.errors import Retryable
from common.tasks import KeyQueue, Wake, backoff_s


async def run_for(queue: KeyQueue[str], work, until) -> None:  # type: ignore[no-untyped-def]
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        runner = group.create_task(queue.run(work))
        await until()
        runner.cancel()


async def test_wake_coalesces_and_times_out() -> None:
    wake = Wake()
    wake.set()
    wake.set()
    assert await wake.wait()
    assert not await wake.wait(timeout_s=0.01)


async def test_a_key_is_never_worked_on_twice_at_once_and_no_add_is_lost() -> None:
    queue: KeyQueue[str] = KeyQueue(SystemClock())
    active: set[str] = set()
    passes = 0
    done = asyncio.Event()

    async def work(key: str) -> None:
        nonlocal passes
        assert key not in active
        active.add(key)
        passes += 1
        if passes == 1:
            queue.add("a")
        await asyncio.sleep(0)
        active.discard(key)
        if passes == 2:
            done.set()

    queue.add("a")
    queue.add("a")
    await run_for(queue, work, done.wait)
    assert passes == 2


async def test_retryable_is_tried_again_and_a_bug_ends_the_queue() -> None:
    queue: KeyQueue[str] = KeyQueue(SystemClock())
    attempts = 0
    done = asyncio.Event()

    async def flaky(key: str) -> None:
        nonlocal attempts
        attempts += 1
        if attempts < 3:
            raise Retryable("away")
        done.set()

    queue.add("a")
    await run_for(queue, flaky, done.wait)
    assert attempts == 3

    async def broken(key: str) -> None:
        raise ZeroDivisionError

    queue.add("b")
    with pytest.raises(ExceptionGroup):
        async with asyncio.timeout(5):
            await queue.run(broken)


def test_backoff_doubles_to_a_cap() -> None:
    assert [backoff_s(n, base_s=1, cap_s=5) for n in (1, 2, 3, 4, 9)] == [1, 2, 4, 5, 5]

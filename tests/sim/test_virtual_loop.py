"""The simulator's clock: hours pass in no time, in order, and a hang is an error."""

import asyncio

import pytest

from tests.sim.virtual_loop import Deadlock, VirtualClock, run


def test_a_day_passes_at_once_and_in_order() -> None:
    order: list[str] = []

    async def note(name: str, seconds: float) -> None:
        await VirtualClock().sleep(seconds)
        order.append(name)

    async def main() -> float:
        async with asyncio.TaskGroup() as group:
            group.create_task(note("late", 86_400))
            group.create_task(note("early", 1))
        return VirtualClock().monotonic()

    assert run(main()) == pytest.approx(86_400)
    assert order == ["early", "late"]


def test_waiting_for_what_never_comes_is_an_error() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        run(main())

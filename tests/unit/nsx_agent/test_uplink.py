"""The agent's end of the broker, over a session whose answers are held back."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from common.clock import SystemClock
from common.messages import Scope, Watermark
from common.mqtt import Outgoing
from nsx_agent.desired import Desired
from nsx_agent.uplink import Uplink

X = Scope.namespace("x")


class HeldSession:
    """Remembers what it was asked; publishing waits while ``open`` is not set."""

    connected = True

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.published: list[Outgoing] = []
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = False

    async def publish(self, messages: list[Outgoing], timeout_s: float = 10.0) -> None:
        self.waiting = True
        await self.open.wait()
        self.waiting = False
        self.published += messages

    async def subscribe(self, filters: list[str]) -> None:
        self.calls += [f"+{name}" for name in filters]

    async def unsubscribe(self, filters: list[str]) -> None:
        self.calls += [f"-{name}" for name in filters]


class Running:
    def __init__(self) -> None:
        self.session, self.desired = HeldSession(), Desired("h")
        self.desired.set_interest(["x"])
        self.uplink = Uplink("h", self.desired, self.session, SystemClock(), lambda: None)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    built = Running()
    task = asyncio.create_task(built.uplink.connected())  # noqa: TID251
    await until(lambda: bool(built.session.published))
    yield built
    built.session.open.set()
    task.cancel()
    await asyncio.wait([task])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_namespace_left_and_entered_again_at_once_is_asked_for_again(running: Running) -> None:
    """Its new store has heard nothing; without a subscription of its own it would wait for ever."""
    session, desired, uplink = running.session, running.desired, running.uplink
    assert session.calls.count(f"+{X.filter}") == 1
    session.open.clear()
    uplink.report(Watermark(host="h", scope="cluster", epoch="e", revision=1, digest=b"", committed_at=0.0))
    await until(lambda: session.waiting)
    for names in ([], ["x"]):
        desired.set_interest(names)
        uplink.stores_changed()
    session.open.set()
    await until(lambda: session.calls.count(f"+{X.filter}") == 2)
    assert session.calls[-2:] == [f"-{X.filter}", f"+{X.filter}"]


async def test_only_the_newest_watermark_of_a_scope_is_sent(running: Running) -> None:
    session, uplink = running.session, running.uplink
    for revision in (1, 2, 3):
        uplink.report(Watermark(host="h", scope="cluster", epoch="e", revision=revision, digest=b"", committed_at=0.0))
    topic = Scope.cluster().watermark_topic("h")
    await until(lambda: any(message.topic == topic for message in session.published))
    assert len([message for message in session.published if message.topic == topic]) == 1

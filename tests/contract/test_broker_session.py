"""The session against a real mosquitto over mutual TLS: reconnect, last will, retained snapshots, refusals."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from common.broker import CONTROLLER
from common.clock import SystemClock
from common.errors import Retryable, Terminal
from common.messages import MESSAGE_BYTES_MAX
from common.mqtt import Outgoing, Received, Session
from tests.support.mosquitto import Mosquitto, running_mosquitto

pytestmark = pytest.mark.integration
EVERYTHING = "sphere/v1/#"


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with running_mosquitto(tmp_path) as broker:
        yield broker


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Peer:
    """A session that subscribes to ``filters`` after each connect and notes what it gets."""

    def __init__(self, broker: Mosquitto, user: str, client_id: str, filters: list[str], **options: object) -> None:
        self.session = Session(broker.broker(user), client_id, SystemClock(), **options)  # type: ignore[arg-type]
        self.filters = filters
        self.got: dict[str, Received] = {}
        self.connects = 0

    async def run(self) -> None:
        await self.session.run(self.connected, self.received)

    async def connected(self) -> None:
        if self.filters:
            await self.session.subscribe(self.filters)
        self.connects += 1

    def received(self, message: Received) -> None:
        self.got[message.topic] = message


async def test_a_new_subscriber_gets_all_that_is_retained(mosquitto: Mosquitto) -> None:
    writer = Peer(mosquitto, CONTROLLER, "writer", [])
    reader = Peer(mosquitto, CONTROLLER, "reader", [EVERYTHING])
    count = 3000
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(writer.run())]
        await until(lambda: writer.session.connected)
        await writer.session.publish(Outgoing(f"sphere/v1/cluster/item/x/{n}", b"%d" % n) for n in range(count))
        await writer.session.publish([Outgoing("sphere/v1/cluster/item/x/7", b"")])
        tasks.append(group.create_task(reader.run()))
        await until(lambda: len(reader.got) == count - 1)
        assert reader.got["sphere/v1/cluster/item/x/42"] == Received("sphere/v1/cluster/item/x/42", b"42", True)
        assert "sphere/v1/cluster/item/x/7" not in reader.got
        for task in tasks:
            task.cancel()


async def test_it_comes_back_after_the_broker_died(mosquitto: Mosquitto) -> None:
    peer = Peer(mosquitto, CONTROLLER, "peer", [EVERYTHING])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(peer.run())
        await until(lambda: peer.connects == 1)
        mosquitto.kill()
        await until(lambda: not peer.session.connected)
        with pytest.raises(Retryable):
            await peer.session.publish([Outgoing("sphere/v1/cluster/manifest", b"x")])
        await mosquitto.start()
        await until(lambda: peer.connects == 2)
        await peer.session.publish([Outgoing("sphere/v1/cluster/manifest", b"y")])
        await until(lambda: "sphere/v1/cluster/manifest" in peer.got)
        task.cancel()


async def test_a_call_under_way_ends_with_its_connection(mosquitto: Mosquitto) -> None:
    peer = Peer(mosquitto, CONTROLLER, "peer", [])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(peer.run())
        await until(lambda: peer.session.connected)

        async def kill_soon() -> None:
            await asyncio.sleep(0.05)
            mosquitto.kill()

        async def flood() -> None:
            while True:
                await peer.session.publish(Outgoing(f"sphere/v1/cluster/item/x/{n}", b"x") for n in range(500))

        group.create_task(kill_soon())
        with pytest.raises(Retryable):
            await asyncio.wait_for(flood(), 5)
        task.cancel()


async def test_the_last_will_speaks_for_one_that_was_killed(mosquitto: Mosquitto) -> None:
    will = Outgoing("sphere/v1/report/h/presence", b"gone")
    watcher = Peer(mosquitto, CONTROLLER, "watcher", ["sphere/v1/report/#"])
    mortal = Peer(mosquitto, CONTROLLER, "mortal", [], will=will)
    usurper = Peer(mosquitto, CONTROLLER, "mortal", [])  # the broker throws the other out: as abrupt as a kill
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(watcher.run()), group.create_task(mortal.run())]
        await until(lambda: mortal.session.connected and watcher.connects == 1)
        tasks.append(group.create_task(usurper.run()))
        await until(lambda: watcher.got.get(will.topic, Received("", b"", False)).payload == b"gone")
        for task in tasks:
            task.cancel()


async def test_a_clean_stop_leaves_no_will(mosquitto: Mosquitto) -> None:
    will = Outgoing("sphere/v1/report/h/presence", b"gone")
    watcher = Peer(mosquitto, CONTROLLER, "watcher", ["sphere/v1/#"])
    mortal = Peer(mosquitto, CONTROLLER, "mortal", [], will=will)
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watcher.run())
        task = group.create_task(mortal.run())
        await until(lambda: mortal.session.connected and watcher.connects == 1)
        task.cancel()
        await until(task.done)
        await watcher.session.publish([Outgoing("sphere/v1/cluster/manifest", b"after")])
        await until(lambda: "sphere/v1/cluster/manifest" in watcher.got)
        assert will.topic not in watcher.got
        watching.cancel()


async def test_a_strangers_subscription_is_refused(mosquitto: Mosquitto) -> None:
    stranger = Peer(mosquitto, "host-9", "host-9", [])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(stranger.run())
        await until(lambda: stranger.connects > 0)
        with pytest.raises(Retryable, match="refused"):
            await stranger.session.subscribe([EVERYTHING])
        task.cancel()


async def test_a_bug_in_the_callback_ends_the_session(mosquitto: Mosquitto) -> None:
    peer = Peer(mosquitto, CONTROLLER, "peer", [EVERYTHING])

    def broken(message: Received) -> None:
        raise KeyError(message.topic)

    async def send() -> None:
        await peer.session.subscribe([EVERYTHING])
        await peer.session.publish([Outgoing("sphere/v1/cluster/manifest", b"x")])

    with pytest.raises((KeyError, ExceptionGroup)):
        async with asyncio.timeout(10):
            await peer.session.run(send, broken)


async def test_too_large_a_message_is_refused_here(mosquitto: Mosquitto) -> None:
    peer = Peer(mosquitto, CONTROLLER, "peer", [EVERYTHING])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(peer.run())
        await until(lambda: peer.connects == 1)
        with pytest.raises(Terminal):
            await peer.session.publish([Outgoing("sphere/v1/cluster/item/x/1", b"x" * (MESSAGE_BYTES_MAX + 1))])
        await peer.session.publish([Outgoing("sphere/v1/cluster/item/x/2", b"x" * MESSAGE_BYTES_MAX)])
        await until(lambda: "sphere/v1/cluster/item/x/2" in peer.got)
        task.cancel()

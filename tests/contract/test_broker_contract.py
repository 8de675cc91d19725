"""One suite for the real broker and the fake: what the network controller and the agents rely on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from common.broker import CONTROLLER
from common.clock import SystemClock
from common.errors import Retryable, Terminal
from common.messages import MESSAGE_BYTES_MAX
from common.mqtt import Outgoing, Received, Session
from controller.network.acl import RESPONSE_TOPIC, AccessList
from controller.network.publish import Broker
from tests.sim.fakes.broker import FakeBroker
from tests.support.mosquitto import running_mosquitto

pytestmark = pytest.mark.integration
CLOCK = SystemClock()
ALL = "sphere/v1/#"


class World(Protocol):
    def session(self, user: str, identifier: str, will: Outgoing | None = None) -> Broker: ...

    async def restart(self, *, forget: bool) -> None: ...


class Real:
    def __init__(self, mosquitto: object) -> None:
        self.mosquitto = mosquitto

    def session(self, user: str, identifier: str, will: Outgoing | None = None) -> Broker:
        return Session(self.mosquitto.broker(user), identifier, CLOCK, will=will)  # type: ignore[attr-defined]

    async def restart(self, *, forget: bool) -> None:
        self.mosquitto.kill(forget=forget)  # type: ignore[attr-defined]
        await self.mosquitto.start()  # type: ignore[attr-defined]


class Fake:
    def __init__(self) -> None:
        self.broker = FakeBroker()

    def session(self, user: str, identifier: str, will: Outgoing | None = None) -> Broker:
        return self.broker.session(user, identifier, CLOCK, will)

    async def restart(self, *, forget: bool) -> None:
        self.broker.stop(forget=forget)
        self.broker.start()


@pytest.fixture(params=["mosquitto", "fake"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield Fake()
        return
    async with running_mosquitto(tmp_path) as mosquitto:
        yield Real(mosquitto)


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Peer:
    """A session and what it got, in order."""

    def __init__(self, world: World, user: str, identifier: str = "", will: Outgoing | None = None) -> None:
        self.session = world.session(user, identifier or user, will)
        self.access = AccessList(self.session)
        self.got: list[Received] = []
        self.connects = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Peer"]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.session.run(self._connected, self._received))
            await until(lambda: self.connects)
            try:
                yield self
            finally:
                task.cancel()

    async def _connected(self) -> None:
        self.connects += 1

    def _received(self, message: Received) -> None:
        if message.topic == RESPONSE_TOPIC:
            self.access.on_message(message)
        else:
            self.got.append(message)

    def topics(self) -> set[str]:
        return {message.topic for message in self.got}


def item(name: str, payload: bytes = b"x") -> Outgoing:
    return Outgoing(f"sphere/v1/{name}", payload)


async def test_a_snapshot_comes_before_what_is_published_after_subscribing(world: World) -> None:
    async with Peer(world, CONTROLLER).running() as peer:
        await peer.session.publish([item(f"cluster/item/x/{n}") for n in range(50)])
        await peer.session.publish([item("cluster/item/x/7", b"")])
        await peer.session.subscribe([ALL])
        await peer.session.publish([Outgoing("sphere/v1/controller/marker", b"m", retain=False)])
        await until(lambda: "sphere/v1/controller/marker" in peer.topics())
        assert [message.topic for message in peer.got].index("sphere/v1/controller/marker") == 49
        assert "sphere/v1/cluster/item/x/7" not in peer.topics()
        assert all(message.retained for message in peer.got[:-1])
        assert not peer.got[-1].retained


async def test_order_of_a_publisher_is_kept(world: World) -> None:
    async with Peer(world, CONTROLLER).running() as peer:
        await peer.session.subscribe([ALL])
        sent = [item(f"cluster/item/x/{n}") for n in range(300)]
        await peer.session.publish(sent)
        await until(lambda: len(peer.got) >= 300)
        assert [message.topic for message in peer.got] == [message.topic for message in sent]


async def test_unsubscribed_means_silence(world: World) -> None:
    async with Peer(world, CONTROLLER).running() as peer:
        await peer.session.subscribe(["sphere/v1/ns/a/#", "sphere/v1/ns/b/#"])
        await peer.session.unsubscribe(["sphere/v1/ns/a/#"])
        await peer.session.publish([item("ns/a/manifest"), item("ns/b/manifest")])
        await until(lambda: "sphere/v1/ns/b/manifest" in peer.topics())
        assert "sphere/v1/ns/a/manifest" not in peer.topics()


@pytest.mark.parametrize("forget", [False, True])
async def test_after_a_restart_the_session_is_back_without_subscriptions(world: World, forget: bool) -> None:
    async with Peer(world, CONTROLLER).running() as peer:
        await peer.session.subscribe([ALL])
        await peer.session.publish([item("cluster/manifest", b"1")])
        await until(lambda: peer.got)
        await world.restart(forget=forget)
        await until(lambda: peer.connects == 2 and peer.session.connected)
        peer.got.clear()
        await peer.session.publish([item("cluster/item/x/1")])
        assert peer.got == []
        await peer.session.subscribe([ALL])
        await until(lambda: peer.topics() >= {"sphere/v1/cluster/item/x/1"})
        if forget:
            assert "sphere/v1/cluster/manifest" not in peer.topics()


async def test_too_large_is_refused(world: World) -> None:
    async with Peer(world, CONTROLLER).running() as peer:
        with pytest.raises(Terminal):
            await peer.session.publish([item("cluster/item/x/1", b"x" * (MESSAGE_BYTES_MAX + 1))])


async def test_a_second_client_of_the_same_name_throws_the_first_out_and_its_will_is_published(world: World) -> None:
    will = item("report/host-1/presence", b"offline")
    async with Peer(world, CONTROLLER, "watcher").running() as watcher:
        await watcher.session.subscribe([ALL])
        async with Peer(world, CONTROLLER, "same", will).running(), Peer(world, CONTROLLER, "same").running():
            await until(lambda: "sphere/v1/report/host-1/presence" in watcher.topics())


async def test_the_access_list_is_followed(world: World) -> None:
    async with Peer(world, CONTROLLER).running() as controller, Peer(world, "host-1").running() as host:
        await controller.session.subscribe(["sphere/v1/report/#"])
        with pytest.raises(Retryable):
            await host.session.subscribe(["sphere/v1/cluster/#"])
        await controller.access.load()
        await controller.access.grant({"host-1": frozenset({"red"}), "host-2": frozenset()})
        await until(lambda: host.session.connected)
        for allowed in ("cluster/#", "host/host-1/#", "ns/red/#", "ns/red/manifest"):
            await host.session.subscribe([f"sphere/v1/{allowed}"])
        for denied in ("#", "host/host-2/#", "host/+/#", "ns/blue/#", "ns/+/#", "report/host-1/#"):
            with pytest.raises(Retryable):
                await host.session.subscribe([f"sphere/v1/{denied}"])
        before = host.connects
        await controller.access.grant({"host-1": frozenset({"red", "blue"}), "host-2": frozenset()})
        await host.session.subscribe(["sphere/v1/ns/blue/#"])
        await controller.access.settle({"host-1": frozenset({"blue"}), "host-2": frozenset()})
        await controller.session.publish([item("ns/red/manifest"), item("ns/blue/manifest")])
        await until(lambda: "sphere/v1/ns/blue/manifest" in host.topics())
        assert "sphere/v1/ns/red/manifest" not in host.topics(), "what was withdrawn is not delivered any more"
        assert host.connects == before, "changing a role must not disconnect its client"
        await host.session.publish(
            [item("report/host-2/presence"), item("cluster/manifest"), item("report/host-1/presence")]
        )
        await until(lambda: "sphere/v1/report/host-1/presence" in controller.topics())
        assert "sphere/v1/report/host-2/presence" not in controller.topics()
        assert "sphere/v1/cluster/manifest" not in host.topics()


async def test_the_access_list_is_read_back(world: World) -> None:
    want = {"host-1": frozenset({"red"}), "host-2": frozenset()}
    async with Peer(world, CONTROLLER).running() as first:
        await first.access.load()
        await first.access.settle(want)
    async with Peer(world, CONTROLLER).running() as second:
        await second.access.load()
        assert second.access.have == want
        await second.access.settle({"host-2": frozenset()})
        await second.access.load()
        assert second.access.have == {"host-2": frozenset()}

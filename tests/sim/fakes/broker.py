"""A broker in memory that keeps the promises the real one keeps to us, and may break what QoS 1 lets it break.

Held to mosquitto by ``tests/contract/test_broker_contract.py``. What it has: retained messages, subscriptions with
``+`` and ``#``, last wills, connections that can be cut, state that can be lost, and the dynamic-security commands
that the controller uses. What faults it adds on demand: duplicates. Order per connection is kept, as mosquitto does.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from common.broker import CONTROL_TOPIC, CONTROLLER, initial_dynamic_security
from common.clock import Clock
from common.errors import Retryable, Terminal
from common.messages import MESSAGE_BYTES_MAX
from common.mqtt import Outgoing, Received

RECONNECT_S = 0.1


def matches(pattern: str, topic: str) -> bool:
    """MQTT 5, 4.7: wildcards; those at the start do not match topics that begin with ``$``."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    want, have = pattern.split("/"), topic.split("/")
    for index, part in enumerate(want):
        if part == "#":
            return True
        if index >= len(have) or part not in ("+", have[index]):
            return False
    return len(want) == len(have)


def covers(allowed: str, pattern: str) -> bool:
    """Whether every topic that ``pattern`` matches is matched by ``allowed`` (as mosquitto judges subscriptions)."""
    want, have = allowed.split("/"), pattern.split("/")
    for index, part in enumerate(want):
        if part == "#":
            return True
        if index >= len(have) or have[index] == "#" or (part != have[index] and part != "+"):
            return False
    return len(want) == len(have)


class FakeBroker:
    """The broker's side. ``duplicates`` is the probability that a delivery happens twice.

    ``delay_s`` is the longest that one message may stay on its way; those behind it wait, as TCP makes them.
    """

    def __init__(self, rng: random.Random | None = None, duplicates: float = 0.0, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.retained: dict[str, bytes] = {}
        self.up = True
        self._rng = rng or random.Random(0)
        self._duplicates = duplicates
        self._sessions: list[FakeSession] = []
        self._security = initial_dynamic_security()

    def session(self, user: str, identifier: str, clock: Clock, will: Outgoing | None = None) -> "FakeSession":
        return FakeSession(self, user, identifier, clock, will)

    def stop(self, *, forget: bool = False) -> None:
        """Die. ``forget`` loses retained messages and the access list."""
        self.up = False
        if forget:
            self.retained.clear()
            self._security = initial_dynamic_security()
        for session in tuple(self._sessions):
            session.cut()

    def start(self) -> None:
        self.up = True

    # For sessions

    def attach(self, session: "FakeSession") -> None:
        for other in tuple(self._sessions):
            if other.identifier == session.identifier:
                other.cut()
        self._sessions.append(session)

    def detach(self, session: "FakeSession", *, clean: bool) -> None:
        if session in self._sessions:
            self._sessions.remove(session)
            if not clean and self.up and session.will is not None:
                self.route(session.user, session.will)

    def subscribe(self, session: "FakeSession", pattern: str) -> bool:
        """False when refused."""
        if not any(covers(topic, pattern) for topic in self._allowed(session.user, "subscribePattern")):
            return False
        session.filters[pattern] = None
        topics = sorted(self.retained)
        self._rng.shuffle(topics)  # a broker sends what it retains in no particular order
        for topic in topics:
            if matches(pattern, topic) and self._may_receive(session.user, topic):
                self._deliver(session, Received(topic, self.retained[topic], True))
        return True

    def route(self, user: str, message: Outgoing) -> None:
        """Publish as ``user``; what is not allowed is dropped without a word, as mosquitto does."""
        if not any(matches(topic, message.topic) for topic in self._allowed(user, "publishClientSend")):
            return
        if message.topic == CONTROL_TOPIC:
            self._control(json.loads(message.payload))
            return
        if message.retain:
            self.retained.pop(message.topic, None)
            if message.payload:
                self.retained[message.topic] = message.payload
        self._fan_out(message.topic, message.payload)

    async def travel(self, clock: Clock) -> None:
        """One message's way to its receiver."""
        if self.delay_s and self._rng.random() < 0.2:
            await clock.sleep(self._rng.uniform(0, self.delay_s))

    def _fan_out(self, topic: str, payload: bytes) -> None:
        for session in tuple(self._sessions):
            if any(matches(each, topic) for each in session.filters) and self._may_receive(session.user, topic):
                self._deliver(session, Received(topic, payload, False))

    def _deliver(self, session: "FakeSession", message: Received) -> None:
        session.deliver(message)
        if self._duplicates and self._rng.random() < self._duplicates:
            session.deliver(message)

    def _allowed(self, user: str, kind: str) -> list[str]:
        held = {
            role["rolename"]
            for client in self._security["clients"]
            if client["username"] == user
            for role in client["roles"]
        }
        return [
            entry["topic"]
            for role in self._security["roles"]
            if role["rolename"] in held
            for entry in role["acls"]
            if entry["acltype"] == kind and entry["allow"]
        ]

    def _may_receive(self, user: str, topic: str) -> bool:
        return any(matches(allowed, topic) for allowed in self._allowed(user, "publishClientReceive"))

    def _control(self, request: dict[str, Any]) -> None:
        responses = [self._command(command) for command in request["commands"]]
        self._fan_out(f"{CONTROL_TOPIC}/response", json.dumps({"responses": responses}).encode())

    def _command(self, command: dict[str, Any]) -> dict[str, Any]:
        name = command["command"]
        answer: dict[str, Any] = {"command": name, "correlationData": command.get("correlationData", "")}
        roles, clients = self._security["roles"], self._security["clients"]
        role = next((each for each in roles if each["rolename"] == command.get("rolename")), None)
        client = next((each for each in clients if each["username"] == command.get("username")), None)
        match name:
            case "listRoles":
                answer["data"] = {"totalCount": len(roles), "roles": roles}
            case "listClients":
                answer["data"] = {"totalCount": len(clients), "clients": clients}
            case "createRole" if role is None:
                roles.append({"rolename": command["rolename"], "acls": command.get("acls", [])})
            case "modifyRole" if role is not None:
                role["acls"] = command["acls"]
            case "deleteRole" if role is not None:
                roles.remove(role)
            case "createClient" if client is None:
                clients.append({"username": command["username"], "roles": command.get("roles", [])})
            case "deleteClient" if client is not None:
                clients.remove(client)
                for session in tuple(self._sessions):
                    if session.user == command["username"] != CONTROLLER:
                        session.cut()
            case _:
                answer["error"] = "Invalid/missing or already existing name"
        return answer


class FakeSession:
    """Has the face of ``common.mqtt.Session``."""

    def __init__(self, broker: FakeBroker, user: str, identifier: str, clock: Clock, will: Outgoing | None) -> None:
        self.user, self.identifier, self.will = user, identifier, will
        self.filters: dict[str, None] = {}
        self.partitioned = False
        self._broker = broker
        self._clock = clock
        self._inbox: asyncio.Queue[Received] | None = None
        self._lost = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._inbox is not None

    def deliver(self, message: Received) -> None:
        if self._inbox is not None:
            self._inbox.put_nowait(message)

    def cut(self) -> None:
        """The connection breaks."""
        self._lost.set()
        self._inbox = None
        self._broker.detach(self, clean=False)

    async def run(
        self,
        on_connect: Callable[[], Awaitable[None]],
        on_message: Callable[[Received], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        while True:
            if self._broker.up and not self.partitioned:
                await self._once(on_connect, on_message)
                on_lost()
            await self._clock.sleep(RECONNECT_S)

    async def _once(self, on_connect: Callable[[], Awaitable[None]], on_message: Callable[[Received], None]) -> None:
        self._lost = asyncio.Event()
        self.filters.clear()
        inbox = self._inbox = asyncio.Queue()
        self._broker.attach(self)

        async def pump() -> None:
            while True:
                message = await inbox.get()
                await self._broker.travel(self._clock)
                on_message(message)

        async def start() -> None:
            try:
                await on_connect()
            except Retryable:
                self.cut()

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pump()), group.create_task(start())]
                await self._lost.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._inbox = None
            self._broker.detach(self, clean=not self._lost.is_set())

    async def publish(self, messages: Iterable[Outgoing], timeout_s: float = 10.0) -> None:
        for message in messages:
            if len(message.payload) > MESSAGE_BYTES_MAX:
                raise Terminal(f"{message.topic[:80]}: {len(message.payload)} bytes is over {MESSAGE_BYTES_MAX}")
            self._need()
            self._broker.route(self.user, message)
        await asyncio.sleep(0)
        self._need()

    async def subscribe(self, filters: Sequence[str], timeout_s: float = 10.0) -> None:
        for pattern in filters:
            self._need()
            if not self._broker.subscribe(self, pattern):
                raise Retryable(f"broker refused subscription {pattern} for {self.identifier}")
        await asyncio.sleep(0)

    async def unsubscribe(self, filters: Sequence[str], timeout_s: float = 10.0) -> None:
        self._need()
        for pattern in filters:
            self.filters.pop(pattern, None)
        await asyncio.sleep(0)

    def _need(self) -> None:
        if self._inbox is None:
            raise Retryable("not connected to the broker")

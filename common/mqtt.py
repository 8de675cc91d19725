"""A session with the MQTT 5 broker that outlives its connections. Nothing of the MQTT library shows outside.

``Session.run`` connects over mutual TLS, hands every received message to a synchronous callback (which only marks
dirty) and connects again, with backoff, when the connection is lost. Each connection starts clean: the session keeps
no state in the broker, since retained messages are the state. After every connect ``on_connect`` runs beside the
message delivery; it subscribes and resynchronises. ``publish`` returns when the broker has acknowledged all of a
batch (QoS 1), or raises ``Retryable``: then any part of it may have arrived.

Expect duplicates and reordering, as QoS 1 allows, and lost messages on queue overflow: manifests show the gap.
"""

import asyncio
import contextlib
import math
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, TypeVar, cast

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from common.broker import PACKET_BYTES_MAX
from common.clock import Clock
from common.errors import Retryable, Terminal
from common.logs import logger
from common.messages import MESSAGE_BYTES_MAX
from common.settings import Settings, TlsFiles
from common.tasks import backoff_s
from common.tls import client_context

QOS: Final = 1
PIPELINE_MAX: Final = 128
"""Publishes that wait for their acknowledgement at once."""
RECEIVE_MAXIMUM: Final = 256
"""Messages the broker may have on the way to us without an acknowledgement: bounds our receive memory."""
TOPIC_BYTES_MAX: Final = 1024
CONNECT_S_MAX: Final = 5.0
RECONNECT_S_MAX: Final = 2.0
FILTERS_PER_CALL_MAX: Final = 64
REFUSED: Final = 0x80
"""SUBACK reason codes from here up are failures (MQTT 5, 3.9.3)."""

T = TypeVar("T")
log = logger("mqtt")


class Broker(Settings, frozen=True, kw_only=True):
    """Config section ``[broker]``: where the broker is and who we are to it."""

    host: str
    port: int = 8883
    tls: TlsFiles


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. An empty ``payload`` on a retained topic deletes what is retained there."""

    topic: str
    payload: bytes
    retain: bool = True


@dataclass(frozen=True, slots=True)
class Received:
    """A message that arrived. ``retained`` is True only for those sent because of a new subscription."""

    topic: str
    payload: bytes
    retained: bool


class _Connection:
    """One live connection and the deadlines of calls that must end with it."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self.client = client
        self.bug: BaseException | None = None
        self._limits: set[asyncio.Timeout] = set()
        self._lost = False

    @contextlib.asynccontextmanager
    async def call(self, timeout_s: float) -> AsyncIterator[aiomqtt.Client]:
        """Bound a call by ``timeout_s`` and by the life of the connection. Raises ``Retryable``."""
        if self._lost:
            raise Retryable("the connection to the broker is lost")
        try:
            async with asyncio.timeout(timeout_s) as limit:
                self._limits.add(limit)
                try:
                    yield self.client
                finally:
                    self._limits.discard(limit)
        except aiomqtt.MqttError as err:
            raise Retryable(f"broker: {err}") from err
        except TimeoutError as err:
            cause = "the connection is lost" if self._lost else f"no acknowledgement in {timeout_s} s"
            raise Retryable(f"broker: {cause}") from err

    def lose(self) -> None:
        """End every call that is under way."""
        self._lost = True
        now = asyncio.get_running_loop().time()
        for limit in self._limits:
            limit.reschedule(now)


class _Inbox(asyncio.Queue[aiomqtt.Message]):
    """Stands in for the library's queue: hands messages over at once instead of a task per message."""

    def __init__(self, deliver: Callable[[Received], None], maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._deliver = deliver

    def put_nowait(self, item: aiomqtt.Message) -> None:
        if isinstance(item.payload, bytes | bytearray):
            self._deliver(Received(item.topic.value, bytes(item.payload), item.retain))


class Session:
    """A client of the broker that reconnects by itself. One ``run`` at a time.

    ``identifier`` is the MQTT client id: two sessions with the same one throw each other out. ``will`` is published
    by the broker when the connection ends in any way but a clean stop of ``run``, at the latest 1.5 times
    ``keepalive_s`` after the peer fell silent. ``jitter`` returns numbers in [0, 1).
    """

    def __init__(
        self,
        broker: Broker,
        identifier: str,
        clock: Clock,
        *,
        will: Outgoing | None = None,
        keepalive_s: int = 3,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._broker = broker
        self._identifier = identifier
        self._clock = clock
        self._will = will
        self._keepalive_s = keepalive_s
        self._jitter = jitter
        self._connection: _Connection | None = None

    @property
    def connected(self) -> bool:
        """Whether publishing has a chance now."""
        return self._connection is not None

    async def run(
        self,
        on_connect: Callable[[], Awaitable[None]],
        on_message: Callable[[Received], None],
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Stay connected until cancelled.

        ``on_connect`` is awaited after each connect, while messages already arrive; it may last as long as the
        connection and is cancelled with it. If it raises ``Retryable`` the session starts over. ``on_message`` must
        not block; an exception from it is a bug and ends ``run``, as does any other exception of ``on_connect``.
        """
        failures, said = 0, ""
        while True:
            began = self._clock.monotonic()
            try:
                await self._once(on_connect, on_message)
            except Retryable as err:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise asyncio.CancelledError from err
                if str(err) != said:
                    said = str(err)
                    log.warning("broker session ended", broker=self._broker.host, reason=said)
            finally:
                if self._connection is not None:
                    self._connection = None
                    on_lost()
            failures = 1 if self._clock.monotonic() - began > 2 * RECONNECT_S_MAX else failures + 1
            await self._clock.sleep(backoff_s(failures, cap_s=RECONNECT_S_MAX) * (0.5 + self._jitter() / 2))

    async def publish(self, messages: Iterable[Outgoing], timeout_s: float = 10.0) -> None:
        """Publish in the given order and wait until the broker has acknowledged all.

        ``timeout_s`` bounds each window of ``PIPELINE_MAX`` messages. Raises ``Retryable`` when there is no
        connection, it is lost or too slow; ``Terminal`` for a message that the broker would refuse for its size.
        """
        for window in _windows(messages, PIPELINE_MAX):
            for message in window:
                if len(message.payload) > MESSAGE_BYTES_MAX or len(message.topic.encode()) > TOPIC_BYTES_MAX:
                    raise Terminal(f"{message.topic[:80]}: {len(message.payload)} bytes is over {MESSAGE_BYTES_MAX}")
            async with self._need().call(timeout_s) as client:
                await _publish_window(client, window)

    async def subscribe(self, filters: Sequence[str], timeout_s: float = 10.0) -> None:
        """Receive what matches ``filters``, what is retained first. Lasts until the connection ends.

        Raises ``Retryable``, also when the broker refuses one: its access list may be about to change.
        """
        for window in _windows(filters, FILTERS_PER_CALL_MAX):
            async with self._need().call(timeout_s) as client:
                codes = await client.subscribe([(name, SubscribeOptions(qos=QOS)) for name in window], timeout=math.inf)
            for name, code in zip(window, cast(list[ReasonCode], codes), strict=True):
                if code.value >= REFUSED:
                    raise Retryable(f"broker refused subscription {name} for {self._identifier}: {code}")

    async def unsubscribe(self, filters: Sequence[str], timeout_s: float = 10.0) -> None:
        """Stop receiving for ``filters``. Raises ``Retryable``."""
        for window in _windows(filters, FILTERS_PER_CALL_MAX):
            async with self._need().call(timeout_s) as client:
                await client.unsubscribe(window, timeout=math.inf)

    def _need(self) -> _Connection:
        if self._connection is None:
            raise Retryable(f"not connected to the broker at {self._broker.host}:{self._broker.port}")
        return self._connection

    async def _once(self, on_connect: Callable[[], Awaitable[None]], on_message: Callable[[Received], None]) -> None:
        """One connection from start to end. Raises ``Retryable`` when it ends."""
        bugs: list[Exception] = []

        def deliver(message: Received) -> None:
            try:
                on_message(message)
            except Exception as err:  # leaves through the library's callbacks otherwise, and is lost there
                bugs.append(err)
                raise

        client = self._client(deliver)
        try:
            await client.__aenter__()
        except aiomqtt.MqttError as err:
            raise Retryable(f"cannot connect to the broker: {err}") from err
        connection = self._connection = _Connection(client)
        log.info("connected to the broker", broker=self._broker.host)
        try:
            async with asyncio.TaskGroup() as group:
                starter = group.create_task(_call(on_connect))
                reason = await _until_lost(client)
                starter.cancel()
                connection.lose()
        except ExceptionGroup as group_error:
            if bugs or group_error.split(Retryable)[1] is not None:
                raise
            raise group_error.exceptions[0] from None
        finally:
            connection.lose()
            with contextlib.suppress(aiomqtt.MqttError):
                await client.__aexit__(None, None, None)
        if bugs:
            raise bugs[0]
        raise Retryable(f"lost the broker: {reason}")

    def _client(self, deliver: Callable[[Received], None]) -> aiomqtt.Client:
        limits = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        limits.ReceiveMaximum = RECEIVE_MAXIMUM
        limits.MaximumPacketSize = PACKET_BYTES_MAX
        will = self._will
        try:
            context = client_context(self._broker.tls)
        except OSError as err:
            raise Retryable(f"cannot load the broker client certificate {self._broker.tls.cert}: {err}") from err
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            identifier=self._identifier,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=self._keepalive_s,
            timeout=CONNECT_S_MAX,
            max_inflight_messages=PIPELINE_MAX,
            will=None if will is None else aiomqtt.Will(will.topic, will.payload, QOS, will.retain),
            tls_context=context,
            properties=limits,
            socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", partial(_Inbox, deliver)),
        )
        client.pending_calls_threshold = PIPELINE_MAX + FILTERS_PER_CALL_MAX
        return client


async def _call(work: Callable[[], Awaitable[None]]) -> None:
    await work()


async def _until_lost(client: aiomqtt.Client) -> str:
    try:
        async for _ in client.messages:
            raise AssertionError("the inbox hands messages over and never queues one")
    except aiomqtt.MqttError as err:
        return str(err.__cause__ or err)
    return "closed"


async def _publish_window(client: aiomqtt.Client, window: Iterable[Outgoing]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for message in window:
                group.create_task(client.publish(message.topic, message.payload, QOS, message.retain, timeout=math.inf))
    except ExceptionGroup as errors:
        if errors.split(aiomqtt.MqttError)[1] is not None:
            raise
        raise errors.exceptions[0] from None


def _windows(items: Iterable[T], size: int) -> Iterator[list[T]]:
    source = iter(items)
    while window := list(islice(source, size)):
        yield window

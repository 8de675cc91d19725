"""The agent's end of the broker: subscriptions to the scopes it holds, watermarks and presence.

Messages only land in ``Desired`` and wake the loop. A scope whose manifest stays unmatched is subscribed to anew.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, Protocol

from common.clock import Clock
from common.errors import Retryable, Terminal
from common.logs import logger
from common.messages import Presence, Scope, Watermark, encode, presence_topic
from common.mqtt import Outgoing, Received
from common.tasks import Wake, backoff_s
from nsx_agent.config import RESYNC_S
from nsx_agent.desired import Desired, ScopeStore

log = logger("uplink")
VERSION: Final = "0.1.0"
STOP_S_MAX: Final = 1.0
"""How long a stop may take to say that the agent is gone."""


class Session(Protocol):
    """What is used of ``common.mqtt.Session``."""

    @property
    def connected(self) -> bool: ...
    async def publish(self, messages: list[Outgoing], timeout_s: float = ...) -> None: ...
    async def subscribe(self, filters: list[str]) -> None: ...
    async def unsubscribe(self, filters: list[str]) -> None: ...


def will(host: str) -> Outgoing:
    """What the broker says when the agent is gone."""
    return Outgoing(presence_topic(host), encode(Presence(host=host, online=False, version=VERSION)))


class Uplink:
    """Keeps subscriptions equal to the stores of ``desired`` and publishes what is to be reported."""

    def __init__(self, host: str, desired: Desired, session: Session, clock: Clock, dirty: Callable[[], None]) -> None:
        self._host = host
        self._desired = desired
        self._session = session
        self._clock = clock
        self._dirty = dirty
        self._wake = Wake()
        self._subscribed: dict[str, ScopeStore] = {}
        """By scope path. A scope that was left and entered again has another store, which has heard nothing."""
        self._watermarks: dict[str, Watermark] = {}
        self._unsent: set[str] = set()
        self._unmatched_since: dict[str, float] = {}
        self.refused = 0
        """Messages that could not be parsed."""

    def receive(self, message: Received) -> None:
        """Callback for arriving messages; an exception here would be a bug of ours."""
        try:
            store = self._desired.receive(message.topic, message.payload)
        except Terminal as err:
            self.refused += 1
            log.warning("message refused", topic=message.topic[:200], reason=str(err))
            return
        if store is not None and store.pending:
            if store.in_sync:
                self._dirty()
            else:
                self._wake.set()

    async def connected(self) -> None:
        """A new connection: say so, ask for everything, then keep both up to date."""
        self._subscribed.clear()
        for store in self._desired.stores():
            store.restart()
        online, offline = (
            Outgoing(presence_topic(self._host), encode(Presence(host=self._host, online=value, version=VERSION)))
            for value in (True, False)
        )
        try:
            await self._serve(online)
        except asyncio.CancelledError:
            # A stop in order has no last will. When the connection is what ended, this fails at once.
            with contextlib.suppress(Retryable):
                await self._session.publish([offline], STOP_S_MAX)
            raise

    async def _serve(self, online: Outgoing) -> None:
        failures, announced = 0, False
        while True:
            try:
                await self._subscribe()
                if not announced:
                    # Only now: before a new host has its role, the broker drops what it publishes without a word.
                    await self._session.publish([online])
                    announced = True
                    # Only after that: whoever comes online has confirmed nothing until it says so again.
                    self._unsent = set(self._watermarks)
                await self._publish()
                timeout_s = await self._resync()
                failures = 0
            except Retryable as err:
                if not self._session.connected:
                    raise
                failures += 1
                timeout_s = backoff_s(failures, cap_s=5.0)
                log.info("will retry", reason=str(err), seconds=timeout_s)
            await self._wake.wait(timeout_s)

    def report(self, watermark: Watermark) -> None:
        """Publish the newest watermark of a scope, now or when connected."""
        self._watermarks[watermark.scope] = watermark
        self._unsent.add(watermark.scope)
        self._wake.set()

    def forget(self, path: str) -> None:
        """A scope that is not held any more has no watermark."""
        if self._watermarks.pop(path, None) is not None:
            self._unsent.add(path)
            self._wake.set()

    def stores_changed(self) -> None:
        """The scopes of ``desired`` are others now."""
        self._wake.set()

    async def _subscribe(self) -> None:
        wanted = {store.scope.path: store for store in self._desired.stores()}
        gone = sorted(path for path, store in self._subscribed.items() if wanted.get(path) is not store)
        if gone:
            await self._session.unsubscribe([Scope(path).filter for path in gone])
            for path in gone:
                del self._subscribed[path]
        for path, store in wanted.items():
            if path not in self._subscribed:
                store.restart()
                await self._session.subscribe([store.scope.filter])
                self._subscribed[path] = store

    async def _publish(self) -> None:
        paths = sorted(self._unsent)
        self._unsent.clear()
        messages = []
        for path in paths:
            watermark = self._watermarks.get(path)
            payload = b"" if watermark is None else encode(watermark)
            messages.append(Outgoing(Scope(path).watermark_topic(self._host), payload))
        if not messages:
            return
        try:
            await self._session.publish(messages)
        except Retryable:
            self._unsent.update(paths)
            raise

    async def _resync(self) -> float | None:
        """Subscribe anew to what does not match its manifest. Returns when to look again."""
        now = self._clock.monotonic()
        behind = {store.scope.path: store for store in self._desired.stores() if _unmatched(store)}
        self._unmatched_since = {path: self._unmatched_since.get(path, now) for path in behind}
        for path, since in sorted(self._unmatched_since.items()):
            if now - since < RESYNC_S or path not in self._subscribed:
                continue
            log.warning("scope does not match its manifest; asking for it again", scope=path)
            self._unmatched_since[path] = now
            # Unsubscribed first, so that nothing of the old subscription arrives after the restart.
            await self._session.unsubscribe([Scope(path).filter])
            behind[path].restart()
            await self._session.subscribe([Scope(path).filter])
        return RESYNC_S if behind else None


def _unmatched(store: ScopeStore) -> bool:
    return store.target is not None and not store.in_sync

"""Keeps what the broker retains equal to desired state: adopt what is there, send only differences, manifests last.

At every connect the publisher subscribes to its own topics and publishes a marker to itself: when the marker comes
back, everything retained has come before it. What is retained and wanted is left alone, so a restarted controller
sends nothing, and a broker that lost its state is filled again by the same comparison. While connected, the publisher
is the only writer and knows what is retained.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from common.errors import Retryable, Terminal
from common.messages import ROOT, Manifest, PortItem, Scope, decode, encode, item_hash, parse_topic
from common.mqtt import Outgoing, Received
from controller.network.desired import Changes, ScopeItems

MARKER_TOPIC: Final = f"{ROOT}/controller/marker"
DESIRED_FILTERS: Final = (f"{ROOT}/cluster/#", f"{ROOT}/ns/#", f"{ROOT}/host/#")
REPORT_FILTER: Final = f"{ROOT}/report/#"
ADOPT_S_MAX: Final = 60.0


class Broker(Protocol):
    """What the publisher needs of ``common.mqtt.Session``; the simulator's broker has it too."""

    @property
    def connected(self) -> bool: ...

    async def run(
        self,
        on_connect: Callable[[], Awaitable[None]],
        on_message: Callable[[Received], None],
        on_lost: Callable[[], None] = ...,
    ) -> None: ...

    async def publish(self, messages: Iterable[Outgoing], timeout_s: float = ...) -> None: ...

    async def subscribe(self, filters: Sequence[str], timeout_s: float = ...) -> None: ...

    async def unsubscribe(self, filters: Sequence[str], timeout_s: float = ...) -> None: ...


@dataclass(slots=True)
class Retained:
    """What the broker holds of our topics: hashes of items, manifests, and the flags of ports."""

    items: dict[Scope, dict[str, int]] = field(default_factory=dict)
    manifests: dict[Scope, Manifest | None] = field(default_factory=dict)
    """None for a manifest that cannot be read."""
    ports: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """By pod uid: cleared and drained."""

    def note(self, topic: str, payload: bytes) -> None:
        """A retained message, or its deletion (empty payload)."""
        try:
            address = parse_topic(topic)
        except Terminal:
            return
        if address.key is None:
            self.manifests.pop(address.scope, None)
            if payload:
                self.manifests[address.scope] = _manifest(payload)
            return
        items = self.items.setdefault(address.scope, {})
        if not payload:
            items.pop(address.key, None)
            return
        items[address.key] = item_hash(address.key, payload)
        if address.key.startswith("port/"):
            try:
                port = decode(payload, PortItem)
            except Terminal:
                return
            self.ports[port.pod_uid] = (port.cleared, port.drained)


def _manifest(payload: bytes) -> Manifest | None:
    try:
        return decode(payload, Manifest)
    except Terminal:
        return None


def manifest_matches(manifest: Manifest | None, items: ScopeItems, epoch: str, revision: int) -> bool:
    """Whether a retained manifest describes ``items`` as they are at ``revision``."""
    return (
        manifest is not None
        and manifest.epoch == epoch
        and manifest.count == len(items.items)
        and manifest.digest == items.digest
        and manifest.revision <= revision
    )


def messages_for(changes: Changes, manifests: Mapping[Scope, Manifest]) -> list[Outgoing]:
    """Messages in the order they must arrive: changed items, deletions, then manifests; host scopes last.

    The host scope comes last because its ports make sense only with what their namespace scopes say.
    """
    items: list[Outgoing] = []
    deletions: list[Outgoing] = []
    last: list[Outgoing] = []
    for scope in sorted(changes, key=lambda each: (each.path.startswith("host/"), each.path)):
        for key, payload in changes[scope].items():
            message = Outgoing(scope.item_topic(key), payload or b"")
            (items if payload is not None else deletions).append(message)
        manifest = manifests.get(scope)
        last.append(Outgoing(scope.manifest_topic, b"" if manifest is None else encode(manifest)))
    return items + deletions + last


def resync_changes(
    retained: Retained, scopes: Mapping[Scope, ScopeItems], manifests: Mapping[Scope, Manifest]
) -> Changes:
    """What has to be sent so that ``retained`` becomes ``scopes``: per scope the differing keys, maybe none."""
    found: dict[Scope, dict[str, bytes | None]] = {}
    for scope in retained.items.keys() | retained.manifests.keys() | scopes.keys():
        want = scopes[scope].items if scope in scopes else {}
        have = retained.items.get(scope, {})
        changed: dict[str, bytes | None] = {
            key: payload for key, payload in want.items() if have.get(key) != item_hash(key, payload)
        }
        changed.update((key, None) for key in have.keys() - want.keys())
        if changed or retained.manifests.get(scope) != manifests.get(scope):
            found[scope] = changed
    return found


class Publisher:
    """Sends plans to the broker. One task calls ``adopt`` and ``send``."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._adopting: Retained | None = None
        self._marker = b""
        self._arrived = asyncio.Event()

    def on_message(self, message: Received) -> None:
        """To be called with every message that is not a report."""
        if self._adopting is None:
            return
        if message.topic == MARKER_TOPIC:
            if message.payload == self._marker:
                self._arrived.set()
        else:
            self._adopting.note(message.topic, message.payload)

    async def adopt(self) -> Retained:
        """Everything that the broker retains of desired state; reports come first. Raises ``Retryable``."""
        self._marker = uuid.uuid4().bytes
        self._arrived.clear()
        self._adopting = Retained()
        try:
            await self._broker.subscribe((REPORT_FILTER, *DESIRED_FILTERS, MARKER_TOPIC))
            await self._broker.publish((Outgoing(MARKER_TOPIC, self._marker, retain=False),))
            async with asyncio.timeout(ADOPT_S_MAX):
                await self._arrived.wait()
            return self._adopting
        except TimeoutError as err:
            raise Retryable(f"the broker did not send its retained state in {ADOPT_S_MAX} s") from err
        finally:
            self._adopting = None
            if self._broker.connected:
                await self._broker.unsubscribe((*DESIRED_FILTERS, MARKER_TOPIC))

    async def send(self, changes: Changes, manifests: Mapping[Scope, Manifest]) -> int:
        """Publish and wait for the broker's word. Raises ``Retryable``: what is retained is then unknown."""
        messages = messages_for(changes, manifests)
        await self._broker.publish(messages)
        return len(messages)

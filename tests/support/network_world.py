"""A registry in memory and a hollow agent: the two ends of the network controller, for tests with any broker."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

from common.clock import Clock
from common.messages import (
    InterestItem,
    Manifest,
    PortItem,
    Presence,
    Scope,
    Watermark,
    decode,
    encode,
    item_hash,
    parse_topic,
    presence_topic,
    set_digest,
)
from common.mqtt import Outgoing, Received
from common.tasks import Wake
from controller.kinds.kind import Object, ResourceKey
from controller.network.publish import Broker
from controller.store.cache import Change
from controller.store.entry import Entry, key_for, make_entry
from controller.store.entry import encode as encode_object


@dataclass
class Registry:
    """What the cache and the local client are to the network controller. Every write is one revision."""

    revision: int = 10
    entries: dict[str, Entry] = field(default_factory=dict)
    subscribers: list[Callable[[Change], None]] = field(default_factory=list)
    status_writes: list[Object] = field(default_factory=list)

    def get(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None:
        return self.entries.get(key_for(resource, namespace, name))

    def list(self, resource: ResourceKey, namespace: str | None = None) -> list[Entry]:
        found = [each for each in self.entries.values() if each.resource == resource]
        return sorted((e for e in found if namespace in (None, e.namespace)), key=lambda each: each.key)

    def by_uid(self, uid: str) -> Entry | None:
        return next((each for each in self.entries.values() if each.uid == uid), None)

    def subscribe(
        self, resources: Iterable[ResourceKey] | None, callback: Callable[[Change], None]
    ) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def put(self, resource: ResourceKey, *objects: Object) -> int:
        """Store objects, all at one revision."""
        return self.txn(*((resource, obj) for obj in objects))

    def txn(self, *pairs: tuple[ResourceKey, Object]) -> int:
        """Store objects of several resources at one revision."""
        self.revision += 1
        for resource, obj in pairs:
            meta = obj["metadata"]
            key = key_for(resource, meta.get("namespace", ""), meta["name"])
            old = self.entries.get(key)
            entry = self.entries[key] = make_entry(key, encode_object(obj), self.revision, lambda r, o: {})
            self._tell(Change("MODIFIED" if old else "ADDED", entry, old, self.revision))
        return self.revision

    def delete(self, resource: ResourceKey, namespace: str, name: str) -> int:
        self.revision += 1
        old = self.entries.pop(key_for(resource, namespace, name))
        self._tell(Change("DELETED", old.deleted_at(self.revision), old, self.revision))
        return self.revision

    def _tell(self, change: Change) -> None:
        for callback in tuple(self.subscribers):
            callback(change)

    async def update_status(self, resource: ResourceKey, obj: Object) -> Object:
        self.status_writes.append(orjson.loads(orjson.dumps(obj)))
        self.put(resource, obj)
        return obj

    def condition(self, resource: ResourceKey, namespace: str, name: str) -> dict[str, Any]:
        """The Realized condition of an object, empty when it has none."""
        entry = self.get(resource, namespace, name)
        conditions = (entry.decode().get("status") or {}).get("conditions") or [] if entry else []
        return next((each for each in conditions if each["type"] == "Realized"), {})


class HollowAgent:
    """Behaves on the broker as nsx-agent does, with a dictionary for a kernel. ``paused`` confirms nothing."""

    def __init__(self, host: str, broker: Broker, clock: Clock) -> None:
        self.host, self.broker, self.clock = host, broker, clock
        self.paused = False
        self.kernel: dict[Scope, dict[str, bytes]] = {}
        self.confirmed: dict[Scope, Manifest] = {}
        self.failures: dict[Scope, tuple[Any, ...]] = {}
        self._held: dict[Scope, dict[str, bytes]] = {}
        self._manifests: dict[Scope, Manifest] = {}
        self._scopes: set[Scope] = set()
        self._wake = Wake()

    @staticmethod
    def will(host: str) -> Outgoing:
        return Outgoing(presence_topic(host), encode(Presence(host=host, online=False)))

    async def run(self) -> None:
        await self.broker.run(self._on_connect, self._on_message)

    def resume(self) -> None:
        self.paused = False
        self._wake.set()

    def port(self, uid: str) -> PortItem | None:
        payload = self.kernel.get(Scope.host(self.host), {}).get(f"port/{uid}")
        return None if payload is None else decode(payload, PortItem)

    def _on_message(self, message: Received) -> None:
        address = parse_topic(message.topic)
        if address.key is None:
            self._manifests.pop(address.scope, None)
            if message.payload:
                self._manifests[address.scope] = decode(message.payload, Manifest)
        elif message.payload:
            self._held.setdefault(address.scope, {})[address.key] = message.payload
        else:
            self._held.get(address.scope, {}).pop(address.key, None)
        self._wake.set()

    async def _on_connect(self) -> None:
        self._held.clear()
        self._manifests.clear()
        self._scopes.clear()
        online = encode(Presence(host=self.host, online=True))
        await self.broker.publish([Outgoing(presence_topic(self.host), online)])
        await self.broker.publish([self._watermark(scope) for scope in self.confirmed])
        while True:
            await self._subscribe()
            if not self.paused:
                await self._commit()
            await self._wake.wait()

    async def _subscribe(self) -> None:
        namespaces: tuple[str, ...] = ()
        interest = self._held.get(Scope.host(self.host), {}).get("interest/namespaces")
        if interest:
            namespaces = decode(interest, InterestItem).namespaces
        want = {Scope.cluster(), Scope.host(self.host), *(Scope.namespace(name) for name in namespaces)}
        for scope in self._scopes - want:
            await self.broker.unsubscribe([scope.filter])
        for scope in (self._scopes | self.kernel.keys()) - want if interest else ():
            for known in (self._held, self._manifests, self.kernel, self.confirmed):
                known.pop(scope, None)
            await self.broker.publish([Outgoing(scope.watermark_topic(self.host), b"")])
        if want - self._scopes:
            await self.broker.subscribe(sorted(scope.filter for scope in want - self._scopes))
        self._scopes = want

    async def _commit(self) -> None:
        for scope, manifest in list(self._manifests.items()):
            held = self._held.get(scope, {})
            complete = manifest.count == len(held) and manifest.digest == set_digest(
                item_hash(key, payload) for key, payload in held.items()
            )
            if not complete or scope not in self._scopes:
                continue
            self.kernel[scope] = dict(held)
            if self.confirmed.get(scope) != manifest:
                self.confirmed[scope] = manifest
                await self.broker.publish([self._watermark(scope)])

    def _watermark(self, scope: Scope) -> Outgoing:
        manifest = self.confirmed[scope]
        watermark = Watermark(
            host=self.host,
            scope=scope.path,
            epoch=manifest.epoch,
            revision=manifest.revision,
            digest=manifest.digest,
            committed_at=self.clock.now(),
            failures=self.failures.get(scope, ()),
        )
        return Outgoing(scope.watermark_topic(self.host), encode(watermark))


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Poll until ``condition`` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

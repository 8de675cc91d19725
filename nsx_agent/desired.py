"""Desired state as it arrives: one store per scope, with a gate.

Messages come at least once, in any order, and some get lost. A store therefore collects what arrives beside what it
**holds**, and takes it over only when count and digest equal the manifest's: then the scope is complete, and only
then may anything be deleted. After a reconnect collecting starts from nothing, since what was deleted meanwhile is
simply not sent; what is held stays in force until the new collection is complete. Pure: no clock, no client.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from common.messages import DIGEST_MODULUS, Manifest, Scope, decode, item_hash, parse_topic


@dataclass(slots=True)
class ScopeStore:
    """One scope. ``held`` is the last complete state: item key -> payload."""

    scope: Scope
    held: dict[str, bytes] = field(default_factory=dict)
    manifest: Manifest | None = None
    """Of what is held; None until the scope was complete once."""
    _arriving: dict[str, bytes] = field(default_factory=dict)
    _sum: int = 0
    _touched: set[str] = field(default_factory=set)
    _fresh: bool = True
    _target: Manifest | None = None

    @property
    def complete(self) -> bool:
        """Whether this scope was ever complete: what it holds may be enforced."""
        return self.manifest is not None

    @property
    def target(self) -> Manifest | None:
        """The newest manifest that arrived on this connection."""
        return self._target

    def restart(self) -> None:
        """A new subscription: everything that exists will be sent again."""
        self._arriving, self._sum, self._fresh, self._target = {}, 0, True, None
        self._touched.clear()

    def put(self, key: str, payload: bytes) -> None:
        """An item arrived; an empty payload deletes it."""
        old = self._arriving.pop(key, None)
        if old is not None:
            self._sum -= item_hash(key, old)
        if payload:
            held = self.held.get(key)
            # After a reconnect everything is sent again: the same bytes are kept once.
            self._arriving[key] = held if held == payload else payload
            self._sum += item_hash(key, payload)
        self._touched.add(key)

    def put_manifest(self, manifest: Manifest) -> None:
        """A manifest arrived. An older one of the same epoch is a duplicate and changes nothing."""
        newest = self._target or self.manifest
        if newest is not None and newest.epoch == manifest.epoch and manifest.revision < newest.revision:
            return
        self._target = manifest

    @property
    def in_sync(self) -> bool:
        """Whether what arrived is exactly what the newest manifest describes."""
        target = self._target
        return (
            target is not None
            and target.count == len(self._arriving)
            and target.digest == (self._sum % DIGEST_MODULUS).to_bytes(16, "big")
        )

    def take(self) -> set[str]:
        """Hold what arrived. Legal when ``in_sync``. Returns the keys whose payload changed."""
        assert self.in_sync
        candidates = self.held.keys() | self._arriving.keys() if self._fresh else self._touched
        changed = {key for key in candidates if self.held.get(key) != self._arriving.get(key)}
        for key in changed:
            payload = self._arriving.get(key)
            if payload is None:
                del self.held[key]
            else:
                self.held[key] = payload
        self.manifest, self._fresh = self._target, False
        self._touched = set()
        return changed

    @property
    def pending(self) -> bool:
        """Whether a manifest waits to be taken over."""
        return self._target is not None and (self._target != self.manifest or bool(self._touched) or self._fresh)


class Desired:
    """All scopes this host holds. ``route`` takes messages; the loop asks which stores are ready."""

    def __init__(self, host: str) -> None:
        self.cluster = ScopeStore(Scope.cluster())
        self.host = ScopeStore(Scope.host(host))
        self.namespaces: dict[str, ScopeStore] = {}

    def stores(self) -> list[ScopeStore]:
        """Cluster and host first, then namespaces by name."""
        return [self.cluster, self.host, *(self.namespaces[name] for name in sorted(self.namespaces))]

    def by_path(self, path: str) -> ScopeStore | None:
        if path == self.cluster.scope.path:
            return self.cluster
        if path == self.host.scope.path:
            return self.host
        return self.namespaces.get(path.removeprefix("ns/")) if path.startswith("ns/") else None

    def set_interest(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Hold exactly the namespaces ``names``. Returns (added, removed) names, sorted."""
        wanted = set(names)
        added = sorted(wanted - self.namespaces.keys())
        removed = sorted(self.namespaces.keys() - wanted)
        for name in added:
            self.namespaces[name] = ScopeStore(Scope.namespace(name))
        for name in removed:
            del self.namespaces[name]
        return added, removed

    def receive(self, topic: str, payload: bytes) -> ScopeStore | None:
        """Store one message. Returns its store, None if it is for a scope not held. Raises ``Terminal``."""
        address = parse_topic(topic)
        store = self.by_path(address.scope.path)
        if store is None:
            return None
        if address.key is not None:
            store.put(address.key, payload)
        elif payload:
            store.put_manifest(decode(payload, Manifest))
        return store

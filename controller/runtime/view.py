"""What a plan may read: the cache at one revision, with the indexes that plans need.

All objects come from one log in revision order, so two objects of a view are never from different times.
Decoded objects are shared between plans: never mutate them (``copy.deepcopy`` what you change).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.selectors import LabelSelector
from controller.kinds.kind import Object, ResourceKey
from controller.runtime import indexes
from controller.runtime.indexes import Index
from controller.runtime.resources import PODS
from controller.store.cache import Change
from controller.store.entry import Entry

DECODED_MAX = 8192


class Reader(Protocol):
    """The part of ``controller.store.cache.Cache`` that is read here."""

    @property
    def revision(self) -> int: ...

    def get(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None: ...

    def list(self, resource: ResourceKey, namespace: str | None = None) -> list[Entry]: ...

    def by_uid(self, uid: str) -> Entry | None: ...

    def subscribe(
        self, resources: Iterable[ResourceKey] | None, callback: Callable[[Change], None]
    ) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last write planned for this key was refused, in the API's words."""

    reason: str
    message: str


class View:
    """Thin read-only access to the cache. Build it once the cache is in sync: it indexes what is there."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._index = Index()
        self._decoded: dict[str, tuple[int, Object]] = {}
        self._failures: dict[tuple[str, str], Failure] = {}

    def connect(self, everything: Iterable[ResourceKey]) -> Callable[[], None]:
        """Index what the cache holds of ``everything`` and follow it. Returns the function that stops that."""
        for resource in everything:
            for entry in self._reader.list(resource):
                self._index.put(entry, None)
        return self._reader.subscribe(None, self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.type == "DELETED":
            self._decoded.pop(change.entry.key, None)
            self._index.drop(change.old or change.entry)
        else:
            self._index.put(change.entry, change.old)

    @property
    def revision(self) -> int:
        """etcd's revision that this view shows."""
        return self._reader.revision

    def entry(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None:
        return self._reader.get(resource, namespace, name)

    def entries(self, resource: ResourceKey, namespace: str | None = None) -> list[Entry]:
        """Sorted by key; ``namespace`` None means all of them."""
        return self._reader.list(resource, namespace)

    def get(self, resource: ResourceKey, namespace: str, name: str) -> Object | None:
        entry = self._reader.get(resource, namespace, name)
        return None if entry is None else self.decode(entry)

    def objects(self, resource: ResourceKey, namespace: str | None = None) -> list[Object]:
        return [self.decode(entry) for entry in self._reader.list(resource, namespace)]

    def by_uid(self, uid: str) -> Entry | None:
        return self._reader.by_uid(uid)

    def owned(self, uid: str) -> list[Entry]:
        """Entries of any kind that name ``uid`` as an owner."""
        return self._index.get(indexes.owned_by(uid))

    def orphans(self, resource: ResourceKey, namespace: str) -> list[Entry]:
        """Objects without any owner. ``resource`` is one that controllers adopt."""
        return self._index.get(indexes.orphans(resource, namespace))

    def pods_on(self, node: str) -> list[Entry]:
        """Pods bound to ``node``; with the empty string, those bound to none."""
        return self._index.get(indexes.on_node(node))

    def group(self, name: str) -> list[Entry]:
        """A group of ``controller.runtime.indexes``, sorted by key."""
        return self._index.get(name)

    def group_size(self, name: str) -> int:
        return self._index.size(name)

    def selected_pods(self, namespace: str, selector: LabelSelector) -> list[Entry]:
        """Pods that match: looks only at those with a label that ``selector`` asks for, where it asks for one."""
        pair = indexes.pair_of(selector)
        if pair is None:
            candidates = self._reader.list(PODS, namespace)
        else:
            candidates = self._index.get(indexes.labelled(namespace, *pair))
        return [entry for entry in candidates if selector.matches(entry.labels)]

    def selecting(self, resource: ResourceKey, namespace: str, labels: Mapping[str, str]) -> list[Entry]:
        """Objects of ``resource`` whose ``spec.selector`` may select ``labels``: what else it asks for is unchecked."""
        pairs = ["*", *(f"{name}={value}" for name, value in sorted(labels.items()))]
        return [e for pair in pairs for e in self._index.get(indexes.selecting(resource, namespace, pair))]

    def decode(self, entry: Entry) -> Object:
        """The object, decoded at most once per version while it is in use. Do not mutate it."""
        known = self._decoded.get(entry.key)
        if known is not None and known[0] == entry.revision:
            return known[1]
        obj = entry.decode()
        if len(self._decoded) >= DECODED_MAX:
            self._decoded.pop(next(iter(self._decoded)))
        self._decoded[entry.key] = (entry.revision, obj)
        return obj

    def failure(self, reconciler: str, key: str) -> Failure | None:
        """What the API refused the last time this key was worked on; None once a pass has gone through."""
        return self._failures.get((reconciler, key))

    def note_failure(self, reconciler: str, key: str, failure: Failure | None) -> None:
        """For the runner only."""
        if failure is None:
            self._failures.pop((reconciler, key), None)
        else:
            self._failures[(reconciler, key)] = failure

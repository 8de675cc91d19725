"""An in-memory registry for plans: the cache's reading side, and writes applied as the API would, one at a time.

No validation, no defaults, no clock: time is given. Deletion honours finalizers; bound pods go at once (``linger``
keeps them, as a spherelet would, until ``finish``).
"""

import copy
import itertools
from collections.abc import Callable, Iterable
from typing import Any

from common.clock import rfc3339
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.registry import REGISTRY
from controller.runtime.reconciler import Reconciler
from controller.runtime.resources import PODS
from controller.runtime.view import View
from controller.runtime.writes import Create, Delete, EmitEvent, Patch, Plan, Update, UpdateStatus, Write
from controller.store.cache import Change
from controller.store.entry import Entry, encode, key_for, make_entry


def merge(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def fields_of(resource: ResourceKey, obj: Object) -> dict[str, str]:
    found = ((path, value(obj)) for path, value in REGISTRY.by_key(resource).selectable_fields.items())
    return {path: text for path, text in found if text}


class ModelRegistry:
    """See the module. ``now`` is advanced by tests."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.revision = 0
        self.now = now
        self.linger = False
        self.events: list[EmitEvent] = []
        self._entries: dict[str, Entry] = {}
        self._subscribers: list[tuple[frozenset[ResourceKey] | None, Callable[[Change], None]]] = []
        self._uids = itertools.count(1)
        self.view = View(self)
        self.view.connect([])

    # Reading: what ``View`` wants

    def get(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None:
        return self._entries.get(key_for(resource, namespace, name))

    def list(self, resource: ResourceKey, namespace: str | None = None) -> list[Entry]:
        prefix = key_for(resource, namespace or "", "")
        if namespace is None:
            prefix = prefix.rsplit("/", 2)[0] + "/"
        return [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)]

    def by_uid(self, uid: str) -> Entry | None:
        return next((entry for entry in self._entries.values() if entry.uid == uid), None)

    def subscribe(
        self, resources: Iterable[ResourceKey] | None, callback: Callable[[Change], None]
    ) -> Callable[[], None]:
        item = (None if resources is None else frozenset(resources), callback)
        self._subscribers.append(item)
        return lambda: self._subscribers.remove(item)

    # Writing

    def put(self, resource: ResourceKey, obj: Object) -> Object:
        """Store as it is, completing what the API would."""
        obj = copy.deepcopy(obj)
        meta = obj["metadata"]
        meta.setdefault("uid", f"uid-{next(self._uids)}")
        meta.setdefault("creationTimestamp", rfc3339(self.now))
        key = key_for(resource, meta.get("namespace", ""), meta["name"])
        old = self._entries.get(key)
        if old is not None and old.decode().get("spec") != obj.get("spec"):
            meta["generation"] = meta.get("generation", 1) + 1
        meta.setdefault("generation", 1)
        self.revision += 1
        entry = make_entry(key, encode(obj), self.revision, fields_of)
        self._entries[key] = entry
        self._tell(Change("MODIFIED" if old else "ADDED", entry, old, self.revision))
        return entry.decode()

    def remove(self, resource: ResourceKey, namespace: str, name: str) -> None:
        self.revision += 1
        old = self._entries.pop(key_for(resource, namespace, name))
        self._tell(Change("DELETED", old.deleted_at(self.revision), old, self.revision))

    def finish(self, resource: ResourceKey, namespace: str, name: str) -> None:
        """A lingering object's last keeper lets go."""
        entry = self.get(resource, namespace, name)
        if entry is not None and entry.deleting:
            self.remove(resource, namespace, name)

    def _tell(self, change: Change) -> None:
        for resources, callback in tuple(self._subscribers):
            if resources is None or change.entry.resource in resources:
                callback(change)

    def apply(self, write: Write) -> None:
        """As the API would do it; preconditions must hold, for a plan on the newest view is never stale."""
        match write:
            case EmitEvent():
                self.events.append(write)
            case Create(resource, obj):
                meta = obj["metadata"]
                assert self.get(resource, meta.get("namespace", ""), meta["name"]) is None, f"{meta['name']} exists"
                self.put(resource, obj)
            case Update(resource, obj) | UpdateStatus(resource, obj):
                self._replace(resource, obj, status=isinstance(write, UpdateStatus))
            case Patch():
                self._patch(write)
            case Delete():
                self._delete(write)

    def _current(self, resource: ResourceKey, namespace: str, name: str) -> Object:
        entry = self.get(resource, namespace, name)
        assert entry is not None, f"{resource} {name} is not there"
        return entry.decode()

    def _replace(self, resource: ResourceKey, obj: Object, *, status: bool) -> None:
        meta = obj["metadata"]
        old = self._current(resource, meta.get("namespace", ""), meta["name"])
        assert meta["resourceVersion"] == old["metadata"]["resourceVersion"], "stale update"
        part = {"status": obj.get("status")} if status else {**obj, "status": old.get("status")}
        self.put(resource, {**old, **part})

    def _patch(self, write: Patch) -> None:
        old = self._current(write.resource, write.namespace, write.name)
        assert isinstance(write.patch, dict)
        expected = (write.patch.get("metadata") or {}).get("resourceVersion")
        assert expected in (None, old["metadata"]["resourceVersion"]), "stale patch"
        new = merge(old, write.patch)
        meta = new["metadata"]
        held = meta.get("finalizers") or (new.get("spec") or {}).get("finalizers")
        waits = write.resource == PODS and self.linger and new["spec"].get("nodeName")
        if meta.get("deletionTimestamp") and not held and not waits:
            self.remove(write.resource, write.namespace, write.name)
        else:
            self.put(write.resource, new)

    def _delete(self, write: Delete) -> None:
        old = self._current(write.resource, write.namespace, write.name)
        meta = old["metadata"]
        assert write.uid == meta["uid"], "deleting a namesake"
        assert write.resource_version in (None, meta["resourceVersion"]), "stale delete"
        added = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}.get(write.propagation or "")
        finalizers = [*(meta.get("finalizers") or ()), *([added] if added else [])]
        waits = write.resource == PODS and self.linger and write.grace_s != 0 and old["spec"].get("nodeName")
        if finalizers or waits:
            change: Object = {"deletionTimestamp": rfc3339(self.now), "deletionGracePeriodSeconds": 0}
            if finalizers:
                change["finalizers"] = sorted(set(finalizers))
            self.put(write.resource, {**old, "metadata": {**meta, **change}})
        else:
            self.remove(write.resource, write.namespace, write.name)

    # Running plans

    def plan(self, reconciler: Reconciler, key: str) -> Plan:
        """The plan now. Asserts that planning twice gives the same, and that the view was left as it was."""
        before = {entry.key: entry.body for entry in self._entries.values()}
        plan = reconciler.plan(self.view, key, self.now)
        assert reconciler.plan(self.view, key, self.now) == plan, "a plan must be deterministic"
        assert {e.key: encode(self.view.decode(e)) for e in self._entries.values()} == {
            key: encode(self._entries[key].decode()) for key in before
        }, "a plan must not mutate what it reads"
        return plan

    def run(self, reconciler: Reconciler, key: str, writes_max: int | None = None) -> int:
        """Plan and apply the first ``writes_max`` writes. Returns how many were planned."""
        plan = self.plan(reconciler, key)
        for write in plan.writes[:writes_max]:
            self.apply(write)
            event = None if isinstance(write, EmitEvent) else write.event
            if event is not None:
                self.events.append(event)
        return len(plan.writes)

    def settle(self, work: Callable[[], Iterable[tuple[Reconciler, str]]], passes_max: int = 100) -> None:
        """Run everything until no plan has a write left; fails when that takes too long."""
        for _ in range(passes_max):
            if not sum([self.run(reconciler, key) for reconciler, key in work()]):
                return
        raise AssertionError(f"no fixed point after {passes_max} passes")

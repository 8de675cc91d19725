"""Namespace: once deleted, empties it, says what is left, and lets it go when nothing is.

Pods go first: while one is left, what it may live on stays, and so do the policies that guard it (KEP-5080).
Ports are left alone: their addresses rest until every host has forgotten them (see ``port_release``).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from controller.kinds.kind import ResourceKey
from controller.reconcilers import conditions
from controller.runtime.reconciler import EVERYTHING, Map, own_key
from controller.runtime.resources import NAMESPACES, PODS, PORTS, split
from controller.runtime.view import Failure, View
from controller.runtime.writes import NOTHING_TO_DO, Delete, Patch, Plan, UpdateStatus, Write
from controller.store.cache import Change
from controller.store.entry import Entry

FINALIZER = "kubernetes"


def _key_when_deleting(view: View, change: Change) -> tuple[str, ...]:
    entry = view.entry(NAMESPACES, "", change.entry.namespace)
    return (f"/{entry.name}",) if entry is not None and entry.deleting else ()


class NamespaceReconciler:
    """``resources`` gives every resource that objects are stored of."""

    name = "namespace-controller"
    watches: Mapping[ResourceKey, Map] = {NAMESPACES: own_key, EVERYTHING: _key_when_deleting}

    def __init__(self, resources: Callable[[], Iterable[ResourceKey]]) -> None:
        self._resources = resources

    def plan(self, view: View, key: str, now: float) -> Plan:
        _, name = split(key)
        namespace = view.get(NAMESPACES, "", name)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return NOTHING_TO_DO
        served = sorted(each for each in self._resources() if each != PORTS)
        left = {each: entries for each in served if (entries := view.entries(each, name))}
        first = left[PODS] if PODS in left else [entry for entries in left.values() for entry in entries]
        writes: list[Write] = [
            Delete(entry.resource, name, entry.name, entry.uid) for entry in first if not entry.deleting
        ]
        status = {**(namespace.get("status") or {}), "phase": "Terminating"}
        status["conditions"] = _conditions(
            status.get("conditions"), left, view.decode, view.failure(self.name, key), now
        )
        if left:
            if status != namespace.get("status"):
                writes.append(UpdateStatus(NAMESPACES, {**namespace, "status": status}))
            return Plan(tuple(writes), None, f"{sum(map(len, left.values()))} objects left")
        kept = [each for each in (namespace.get("spec") or {}).get("finalizers") or () if each != FINALIZER]
        if kept == ((namespace.get("spec") or {}).get("finalizers") or []):
            return NOTHING_TO_DO
        change = {
            "metadata": {"resourceVersion": namespace["metadata"]["resourceVersion"]},
            "spec": {"finalizers": kept},
        }
        return Plan((Patch(NAMESPACES, "", name, change, subresource="finalize"),), None, "empty, let go")


def _conditions(
    old: Sequence[Mapping[str, object]] | None,
    left: Mapping[ResourceKey, Sequence[Entry]],
    decode: Callable[[Entry], Mapping[str, object]],
    failure: Failure | None,
    now: float,
) -> list[conditions.Condition]:
    """What tells a user why a namespace is still there."""
    counted = ", ".join(f"{resource}. has {len(entries)} resource instances" for resource, entries in left.items())
    held: dict[str, int] = {}
    for entries in left.values():
        for entry in entries:
            metadata = decode(entry).get("metadata")
            for finalizer in (metadata.get("finalizers") or ()) if isinstance(metadata, dict) else ():
                held[finalizer] = held.get(finalizer, 0) + 1
    finalizers = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(held.items()))
    found = conditions.with_condition(
        old,
        "NamespaceDeletionContentFailure",
        "True" if failure else "False",
        "ContentDeletionFailed" if failure else "ContentDeleted",
        failure.message if failure else "All content successfully deleted, may be waiting on finalization",
        now,
    )
    found = conditions.with_condition(
        found,
        "NamespaceContentRemaining",
        "True" if left else "False",
        "SomeResourcesRemain" if left else "ContentRemoved",
        f"Some resources are remaining: {counted}" if left else "All content successfully removed",
        now,
    )
    return conditions.with_condition(
        found,
        "NamespaceFinalizersRemaining",
        "True" if held else "False",
        "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
        f"Some content in the namespace has finalizers remaining: {finalizers}"
        if held
        else "All content-preserving finalizers finished",
        now,
    )

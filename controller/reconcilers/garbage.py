"""Garbage collection along owner references, object by object (the key is a uid).

An object whose owners are all gone goes too. Foreground: the owner waits for its blocking dependents, but not for one
that waits for the owner itself, through however many others. Orphan: the
references go, the dependents stay. An owner is absent only if the view, which is newer than every reference in it,
does not have its uid; one in another namespace counts as absent.
"""

from collections.abc import Mapping
from enum import Enum

from controller.kinds.kind import Object, ResourceKey
from controller.runtime.reconciler import EVERYTHING, Map
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, Patch, Plan
from controller.store.cache import Change
from controller.store.entry import Entry

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class _Owner(Enum):
    SOLID = "there"
    WAITING = "deleted in the foreground"
    ABSENT = "gone"


def _keys(view: View, change: Change) -> tuple[str, ...]:
    entry, old = change.entry, change.old
    if change.type == "DELETED":
        return (*(each.uid for each in view.owned(entry.uid)), *entry.owners)
    if old is not None and not entry.deleting and old.owners == entry.owners:
        return ()
    owners = {*entry.owners, *(old.owners if old is not None else ())}
    found = [entry.uid, *sorted(owners)] if owners or entry.deleting else []
    if entry.deleting:
        found += [each.uid for each in view.owned(entry.uid)]
    return tuple(found)


class GarbageReconciler:
    """See the module."""

    name = "garbage-collector"
    watches: Mapping[ResourceKey, Map] = {EVERYTHING: _keys}

    def plan(self, view: View, key: str, now: float) -> Plan:
        entry = view.by_uid(key)
        if entry is None:
            return NOTHING_TO_DO
        if entry.deleting:
            return _finalize(view, entry)
        return _collect(view, entry) if entry.owners else NOTHING_TO_DO


def _finalize(view: View, entry: Entry) -> Plan:
    """Serve our two finalizers on an object that is being deleted."""
    obj = view.decode(entry)
    finalizers: list[str] = obj["metadata"].get("finalizers") or []
    dependents = [view.decode(each) for each in view.owned(entry.uid) if _in_reach(entry, each)]
    if ORPHAN in finalizers:
        if dependents:
            writes = tuple(_without_owners(view, each, {entry.uid}) for each in dependents)
            return Plan(writes, None, f"orphaned {len(dependents)} dependents")
        return Plan((_patch(entry, "finalizers", [each for each in finalizers if each != ORPHAN]),), None, "orphaned")
    blocking = [each["metadata"]["uid"] for each in dependents if _blocks(each, entry.uid)]
    if FOREGROUND in finalizers and all(_waits_for(view, uid, entry.uid) for uid in blocking):
        rest = [each for each in finalizers if each != FOREGROUND]
        return Plan((_patch(entry, "finalizers", rest),), None, "all dependents are gone")
    return NOTHING_TO_DO


def _collect(view: View, entry: Entry) -> Plan:
    """Delete an object whose owners are gone or wait for it; else drop the references that lead nowhere."""
    obj = view.decode(entry)
    states = {str(ref["uid"]): _owner(view, entry, str(ref["uid"])) for ref in obj["metadata"]["ownerReferences"]}
    if _Owner.SOLID in states.values():
        dead = {uid for uid, state in states.items() if state is not _Owner.SOLID}
        return Plan((_without_owners(view, obj, dead),), None, "dropped absent owners") if dead else NOTHING_TO_DO
    policy = "Background"
    if _Owner.WAITING in states.values() and view.owned(entry.uid):
        policy = "Foreground"
    finalizers = obj["metadata"].get("finalizers") or ()
    if ORPHAN in finalizers:
        policy = "Orphan"
    elif FOREGROUND in finalizers:
        policy = "Foreground"
    write = Delete(
        entry.resource,
        entry.namespace,
        entry.name,
        entry.uid,
        resource_version=str(entry.revision),
        propagation=policy,
    )
    return Plan((write,), None, f"{entry.resource} {entry.namespace}/{entry.name}: owners gone, deleted ({policy})")


def _owner(view: View, entry: Entry, uid: str) -> _Owner:
    owner = view.by_uid(uid)
    if owner is None or not _in_reach(owner, entry):
        return _Owner.ABSENT
    if owner.deleting and FOREGROUND in (view.decode(owner)["metadata"].get("finalizers") or ()):
        return _Owner.WAITING
    return _Owner.SOLID


def _in_reach(owner: Entry, dependent: Entry) -> bool:
    return owner.namespace in ("", dependent.namespace)


def _waits_for(view: View, uid: str, owner: str) -> bool:
    """Whether the object is deleted in the foreground and waits, in a circle, for ``owner`` to go."""
    seen: set[str] = set()
    waiting = [uid]
    while waiting:
        each = waiting.pop()
        entry = view.by_uid(each)
        if each in seen or entry is None or not entry.deleting:
            continue
        seen.add(each)
        if FOREGROUND not in (view.decode(entry)["metadata"].get("finalizers") or ()):
            continue
        for dependent in view.owned(each):
            if _in_reach(entry, dependent) and _blocks(view.decode(dependent), each):
                if dependent.uid == owner:
                    return True
                waiting.append(dependent.uid)
    return False


def _blocks(dependent: Object, uid: str) -> bool:
    references = dependent["metadata"].get("ownerReferences") or ()
    return any(ref.get("uid") == uid and ref.get("blockOwnerDeletion") for ref in references)


def _without_owners(view: View, obj: Object, uids: set[str]) -> Patch:
    entry = view.by_uid(obj["metadata"]["uid"])
    if entry is None:
        raise AssertionError("decoded from this view")
    rest = [ref for ref in obj["metadata"]["ownerReferences"] if ref.get("uid") not in uids]
    return _patch(entry, "ownerReferences", rest)


def _patch(entry: Entry, field: str, value: list[object] | list[str]) -> Patch:
    metadata = {field: value, "uid": entry.uid, "resourceVersion": str(entry.revision)}
    return Patch(entry.resource, entry.namespace, entry.name, {"metadata": metadata})

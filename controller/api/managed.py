"""managedFields: who set what; and server-side apply on top of it. Pure.

Spec: structured-merge-diff ``merge/update.go``, apimachinery ``util/managedfields``.
"""

import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from controller.api import last_applied, structure
from controller.api.fieldset import Path, Paths, decode, encode, text
from controller.api.status import ApiError
from controller.kinds.kind import Kind, Object
from controller.kinds.schemas import Shape

UPDATE_ENTRIES_MAX = 10
ANCIENT = "ancient-changes"
BEFORE_APPLY = "before-first-apply"
"""Owns what was there before ownership was kept, once somebody applies."""
_RESETS: tuple[list[Object], ...] = ([], [{}])
_NEVER_OWNED = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
        )
    }
)


class Owner(NamedTuple):
    """Key of an entry of ``managedFields``."""

    manager: str
    operation: str
    api_version: str
    subresource: str


class Owned(NamedTuple):
    """What an owner owns, and since when."""

    paths: Paths
    time: str


Owners = dict[Owner, Owned]


def read(obj: Object) -> Owners:
    """Owners of an object; entries that make no sense are dropped."""
    owners: Owners = {}
    for entry in obj["metadata"].get("managedFields") or ():
        if not isinstance(entry, dict) or not entry.get("manager"):
            continue
        if entry.get("operation", "Update") not in ("Apply", "Update"):
            continue
        owner = Owner(
            str(entry["manager"]),
            str(entry.get("operation", "Update")),
            str(entry.get("apiVersion", "")),
            str(entry.get("subresource", "")),
        )
        owners[owner] = Owned(decode(entry.get("fieldsV1")), str(entry.get("time", "")))
    return owners


def write(obj: Object, owners: Mapping[Owner, Owned]) -> None:
    """Store owners in ``obj``: appliers first, then by time."""
    entries = []
    for owner, owned in sorted(owners.items(), key=lambda item: (item[0].operation, item[1].time, item[0])):
        if not owned.paths:
            continue
        entry: Object = {
            "manager": owner.manager,
            "operation": owner.operation,
            "apiVersion": owner.api_version,
            "time": owned.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": encode(owned.paths),
        }
        if owner.subresource:
            entry["subresource"] = owner.subresource
        entries.append(entry)
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def track(shape: Shape, old: Object | None, new: Object, manager: str, subresource: str, now: str) -> None:
    """Record in ``new`` that ``manager`` set what differs from ``old``.

    The managedFields that ``new`` comes with, when they differ from ``old``'s, are what the owners are from then on.
    """
    asked = None if old is None else _asked(old, new, subresource)
    if old is None:
        owners: Owners = {}
        changed, removed = structure.paths_of(shape, new), frozenset[Path]()
    else:
        owners = read(old) if asked is None else asked
        difference = structure.compare(shape, _without_managed(old), _without_managed(new))
        changed, removed = frozenset(difference.changed), frozenset(difference.removed)
    changed = changed - _NEVER_OWNED
    if not subresource:
        # What the server itself puts into a new object's status is nobody's.
        changed = frozenset(path for path in changed if path[0] != "f:status")
    taken = changed | removed
    if taken:
        for owner, owned in list(owners.items()):
            if not owned.paths.isdisjoint(taken):
                owners[owner] = Owned(owned.paths - taken, owned.time)
    if changed:
        me = Owner(manager, "Update", new["apiVersion"], subresource)
        owners[me] = Owned(owners[me].paths | changed if me in owners else changed, now)
        _cap(owners, now)
    elif not taken and old is not None and asked is None:
        # Nothing that anybody can own has changed: keep the stored text, byte for byte.
        if "managedFields" in old["metadata"]:
            new["metadata"]["managedFields"] = old["metadata"]["managedFields"]
        return
    write(new, owners)


def _asked(old: Object, new: Object, subresource: str) -> Owners | None:
    """Owners as the writer wants them, or None when the stored ones stand.

    ``[]`` or ``[{}]`` forgets all of them. What cannot be read is ignored, so that clients that know nothing of
    ownership do not destroy it; so is what comes through a subresource.
    """
    given = new["metadata"].get("managedFields")
    if subresource or given is None or given == old["metadata"].get("managedFields"):
        return None
    return {} if given in _RESETS else read(new) or None


def _without_managed(obj: Object) -> Object:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    return {**obj, "metadata": metadata}


def _cap(owners: Owners, now: str) -> None:
    """Merge the oldest updates into one entry, so that short-lived managers do not pile up."""
    updates = [owner for owner in owners if owner.operation == "Update" and owner.manager != ANCIENT]
    extra = len(updates) - UPDATE_ENTRIES_MAX
    for owner in sorted(updates, key=lambda item: owners[item].time)[: max(0, extra)]:
        owned = owners.pop(owner)
        ancient = Owner(ANCIENT, "Update", owner.api_version, owner.subresource)
        have = owners.get(ancient, Owned(frozenset(), now))
        owners[ancient] = Owned(have.paths | owned.paths, owned.time)


def apply(
    shape: Shape, live: Object, config: Object, manager: str, subresource: str, now: str, *, force: bool, kind: Kind
) -> Object:
    """Server-side apply of ``config`` over ``live`` (an empty object when there is none).

    Returns the new object with its managedFields. Raises ``ApiError`` 409 that names every conflict.
    """
    _reset(config, kind, subresource)
    owners = read(live) or _unowned(shape, live, now, kind)
    me = Owner(manager, "Apply", kind.api_version, subresource)
    wanted = structure.paths_of(shape, config) - _NEVER_OWNED
    new = structure.merged(shape, live, config)
    difference = structure.compare(shape, _without_managed(live), _without_managed(new))
    changed = difference.changed
    conflicts = {o: owned.paths & changed for o, owned in owners.items() if o != me and owned.paths & changed}
    if conflicts and not force:
        # kubectl going over from client-side apply: what it applied last that way is its own.
        mine = last_applied.untouched(shape, live) if manager == last_applied.MANAGER else frozenset[Path]()
        others = {owner: left for owner, paths in conflicts.items() if (left := paths - mine)}
        if others:
            raise _conflict(others, owners)
    for owner, paths in conflicts.items():
        owners[owner] = Owned(owners[owner].paths - paths, owners[owner].time)
    before = owners.pop(me, Owned(frozenset(), now))
    new = structure.without(shape, new, _pruned(before.paths - wanted, owners, wanted))
    gone = structure.compare(shape, _without_managed(live), _without_managed(new)).removed
    for owner, owned in list(owners.items()):
        owners[owner] = Owned(owned.paths - gone, owned.time)
    # Applying the same again changes nothing, not even a time.
    owners[me] = Owned(wanted, before.time if before.paths == wanted and not difference.changed else now)
    write(new, owners)
    if manager == last_applied.MANAGER:
        last_applied.refresh(new, config)
    return new


def _unowned(shape: Shape, live: Object, now: str, kind: Kind) -> Owners:
    """Owner of an object that exists and that nobody owns anything of."""
    if not live["metadata"].get("uid"):
        return {}
    paths = structure.paths_of(shape, _without_managed(live)) - _NEVER_OWNED
    if "status" in kind.subresources:
        paths = frozenset(path for path in paths if path[0] != "f:status")
    return {Owner(BEFORE_APPLY, "Update", kind.api_version, ""): Owned(paths, now)}


def _reset(config: Object, kind: Kind, subresource: str) -> None:
    if subresource == "status":
        for name in list(config):
            if name not in ("apiVersion", "kind", "metadata", "status"):
                del config[name]
    elif "status" in kind.subresources:
        config.pop("status", None)


def _pruned(given_up: Paths, owners: Owners, wanted: Paths) -> Iterable[Path]:
    """Of what this manager no longer wants, what nobody else owns, itself or below."""
    owned: set[Path] = set()
    for paths in (wanted, *(item.paths for item in owners.values())):
        for path in paths:
            owned.update(path[:length] for length in range(1, len(path) + 1))
    return [path for path in given_up if path not in owned]


def _manager_text(owner: Owner, time: str) -> str:
    said = json.dumps(owner.manager)
    if owner.subresource:
        said += f' with subresource "{owner.subresource}"'
    if owner.operation == "Update":
        said += f" using {owner.api_version}" + (f" at {time}" if time else "")
    return said


def _conflict(conflicts: Mapping[Owner, frozenset[Path]], owners: Owners) -> ApiError:
    said = {owner: _manager_text(owner, owners[owner].time) for owner in conflicts}
    found = [(said[owner], text(path)) for owner in sorted(conflicts) for path in sorted(conflicts[owner])]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": where} for who, where in found
    ]
    if len(found) == 1:
        message = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        lines = []
        for who in dict.fromkeys(who for who, _ in found):
            lines += [f"conflicts with {who}:", *(f"- {where}" for other, where in found if other == who)]
        message = f"Apply failed with {len(found)} conflicts: " + "\n".join(lines)
    return ApiError(409, "Conflict", message, {"causes": causes})

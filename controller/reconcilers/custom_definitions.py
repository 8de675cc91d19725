"""CustomResourceDefinitions: accepts their names, establishes them, and on deletion empties them first.

Of two definitions of a group that want the same name the older one keeps it. Serving what is established is the API's
part (``controller/api/custom_resources.py``).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from controller.kinds.custom_definition import FINALIZER, GROUP
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions
from controller.runtime.reconciler import EVERYTHING, Map
from controller.runtime.resources import split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, Patch, Plan, UpdateStatus
from controller.store.cache import Change

DEFINITIONS: Final = ResourceKey(GROUP, "customresourcedefinitions")


def _definition_keys(view: View, change: Change) -> tuple[str, ...]:
    """The definition, and those of its group, which may wait for its names."""
    group = change.entry.name.partition(".")[2]
    rest = [e.name for e in view.entries(DEFINITIONS) if e.name != change.entry.name and e.name.endswith(f".{group}")]
    return tuple(f"/{name}" for name in (change.entry.name, *rest))


def _instance_key(view: View, change: Change) -> tuple[str, ...]:
    """The definition of an object that has gone while the definition waits for that."""
    if change.type != "DELETED":
        return ()
    definition = view.entry(DEFINITIONS, "", str(change.entry.resource))
    return (f"/{definition.name}",) if definition is not None and definition.deleting else ()


class CustomDefinitionReconciler:
    """See the module."""

    name = "customresourcedefinition-controller"
    watches: Mapping[ResourceKey, Map] = {DEFINITIONS: _definition_keys, EVERYTHING: _instance_key}

    def plan(self, view: View, key: str, now: float) -> Plan:
        _, name = split(key)
        definition = view.get(DEFINITIONS, "", name)
        if definition is None:
            return NOTHING_TO_DO
        if "deletionTimestamp" in definition["metadata"]:
            return _empty(view, definition, now)
        others = [each for each in view.objects(DEFINITIONS) if each["metadata"]["name"] != name]
        status = _status(definition, _conflict(definition, others), now)
        if status == definition.get("status"):
            return NOTHING_TO_DO
        return Plan((UpdateStatus(DEFINITIONS, {**definition, "status": status}),), None, "names looked at")


def _claims(names: Object) -> set[str]:
    """What a definition's resource is called in discovery."""
    return {names["plural"], names.get("singular") or names["kind"].lower(), *(names.get("shortNames") or ())}


def _conflict(definition: Object, others: Sequence[Object]) -> str:
    """Why its names cannot be had, or empty."""
    spec = definition["spec"]
    names = spec["names"]
    for other in others:
        accepted = (other.get("status") or {}).get("acceptedNames") or {}
        if other["spec"]["group"] != spec["group"] or not accepted.get("plural"):
            continue
        taken = sorted(_claims(names) & _claims(accepted))
        if taken:
            return f'"{taken[0]}" is already in use'
        kinds = {names["kind"], names.get("listKind")} & {accepted["kind"], accepted.get("listKind")}
        if kinds:
            return f'"{sorted(str(kind) for kind in kinds)[0]}" is already in use'
    return ""


def _status(definition: Object, conflict: str, now: float) -> Object:
    status: Object = dict(definition.get("status") or {})
    names, found = definition["spec"]["names"], status.get("conditions")
    if conflict:
        found = conditions.with_condition(found, "NamesAccepted", "False", "NamesConflict", conflict, now)
        if conditions.find(found, "Established") is None:
            text = "not all names are accepted"
            found = conditions.with_condition(found, "Established", "False", "NotAccepted", text, now)
        status.setdefault("acceptedNames", {"plural": "", "kind": ""})
    else:
        text = "no conflicts found"
        found = conditions.with_condition(found, "NamesAccepted", "True", "NoConflicts", text, now)
        text = "the initial names have been accepted"
        found = conditions.with_condition(found, "Established", "True", "InitialNamesAccepted", text, now)
        status["acceptedNames"] = names
    status["conditions"] = found
    return status


def _empty(view: View, definition: Object, now: float) -> Plan:
    """Delete every instance, then let the definition go."""
    metadata, spec = definition["metadata"], definition["spec"]
    finalizers = metadata.get("finalizers") or []
    if FINALIZER not in finalizers:
        return NOTHING_TO_DO
    resource = ResourceKey(spec["group"], spec["names"]["plural"])
    established = conditions.is_true((definition.get("status") or {}).get("conditions"), "Established")
    left = view.entries(resource) if established else []
    if left:
        writes = tuple(Delete(e.resource, e.namespace, e.name, e.uid) for e in left if not e.deleting)
        status = dict(definition.get("status") or {})
        text = "CustomResource deletion is in progress"
        found = conditions.with_condition(
            status.get("conditions"), "Terminating", "True", "InstanceDeletionInProgress", text, now
        )
        if found != status.get("conditions"):
            status["conditions"] = found
            return Plan((UpdateStatus(DEFINITIONS, {**definition, "status": status}), *writes), None, "emptying")
        return Plan(writes, None, f"{len(left)} instances left")
    change = {
        "metadata": {
            "resourceVersion": metadata["resourceVersion"],
            "finalizers": [each for each in finalizers if each != FINALIZER],
        }
    }
    return Plan((Patch(DEFINITIONS, "", metadata["name"], change),), None, "empty, let go")

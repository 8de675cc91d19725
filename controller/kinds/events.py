"""Events of core/v1, and events.k8s.io/v1, which is another view of the same objects."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from controller.kinds.columns import at, computed, dig, since
from controller.kinds.kind import Column, Kind, Object, Stored
from controller.kinds.rules import Errors, invalid, required


def _seen(event: Object) -> Any:
    return (
        event.get("lastTimestamp")
        or dig(event, "series.lastObservedTime")
        or event.get("eventTime")
        or event.get("firstTimestamp")
        or dig(event, "metadata.creationTimestamp")
    )


def _last_seen(event: Object, now: float) -> str:
    return since(_seen(event), now)


def _first_seen(event: Object, now: float) -> str:
    return since(event.get("firstTimestamp") or event.get("eventTime") or _seen(event), now)


def _object(event: Object) -> str:
    involved = event.get("involvedObject") or {}
    kind = str(involved.get("kind", "")).lower()
    return f"{kind}/{involved.get('name', '')}" if involved.get("name") else kind


def _source(event: Object) -> str:
    source = event.get("source") or {}
    parts = [source.get("component") or event.get("reportingComponent") or "", source.get("host") or ""]
    return ", ".join(part for part in parts if part)


def _count(event: Object) -> int:
    return int(dig(event, "series.count") or event.get("count") or 1)


def _validate(event: Object) -> Errors:
    namespace, involved = dig(event, "metadata.namespace", ""), event.get("involvedObject") or {}
    target = involved.get("namespace") or ""
    if target and target != namespace:
        return [invalid("involvedObject.namespace", target, "does not match event.namespace")]
    if not target and namespace not in ("default", "kube-system", ""):
        return [invalid("involvedObject.namespace", target, "does not match event.namespace")]
    return []


def _default(event: Object) -> None:
    event.setdefault("involvedObject", {})
    event.setdefault("source", {})
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")


def _text(path: str) -> Any:
    return lambda obj: str(dig(obj, path, ""))


_INVOLVED: Final = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")

EVENT: Final = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    schema="io.k8s.api.core.v1.Event",
    singular="event",
    short_names=("ev",),
    columns=(
        Column("Last Seen", "string", _last_seen),
        at("Type", "type"),
        at("Reason", "reason"),
        computed("Object", _object),
        at("Subobject", "involvedObject.fieldPath", priority=1),
        computed("Source", _source, priority=1),
        at("Message", "message"),
        Column("First Seen", "string", _first_seen, 1),
        computed("Count", _count, "string", priority=1),
        computed("Name", _text("metadata.name"), priority=1, format="name"),
    ),
    generation_fields=(),
    selectable_fields={
        **{f"involvedObject.{key}": _text(f"involvedObject.{key}") for key in _INVOLVED},
        "reason": _text("reason"),
        "type": _text("type"),
        "reportingComponent": _text("reportingComponent"),
        "source": lambda obj: str(dig(obj, "source.component") or obj.get("reportingComponent") or ""),
    },
    default=_default,
    validate=_validate,
)

# Of events.k8s.io: of core.
_RENAMED: Final = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}


def _rename(obj: Object, names: Iterable[tuple[str, str]]) -> None:
    for old, new in names:
        if old in obj:
            obj[new] = obj.pop(old)


def _from_core(event: Object) -> None:
    _rename(event, ((core, new) for new, core in _RENAMED.items()))


def _to_core(event: Object) -> None:
    _rename(event, _RENAMED.items())
    _default(event)


def _seen_as_core(cell: Callable[[Object, float], Any]) -> Callable[[Object, float], Any]:
    def shown(event: Object, now: float) -> Any:
        core = {**event}
        _to_core(core)
        return cell(core, now)

    return shown


def _validate_new(event: Object) -> Errors:
    """``ValidateEventCreate`` of events.k8s.io/v1, which asks for more than core does."""
    core = {**event}
    _to_core(core)
    errors = _validate(core)
    if not event.get("eventTime") and not event.get("deprecatedFirstTimestamp"):
        errors.append(required("eventTime"))
    for key in ("reportingController", "reportingInstance", "action", "reason"):
        if not event.get(key) and event.get("eventTime"):
            errors.append(required(key))
    if event.get("type") not in ("Normal", "Warning"):
        errors.append(invalid("type", event.get("type") or "", "has invalid value: " + str(event.get("type") or "")))
    return errors


_NEW_FIELDS: Final = {
    **{f"regarding.{key}": f"involvedObject.{key}" for key in _INVOLVED},
    "reportingController": "reportingComponent",
}

NEW_EVENT: Final = replace(
    EVENT,
    group="events.k8s.io",
    schema="io.k8s.api.events.v1.Event",
    columns=tuple(replace(each, cell=_seen_as_core(each.cell)) for each in EVENT.columns),
    selectable_fields={**EVENT.selectable_fields, **dict.fromkeys(_NEW_FIELDS, _text(""))},
    stored=Stored(EVENT.key, "v1", _from_core, _to_core, _NEW_FIELDS),
    default=lambda event: None,
    validate=lambda event: [],
    validate_create=_validate_new,
)

CORE_KINDS: Final = (EVENT,)
NEW_KINDS: Final = (NEW_EVENT,)

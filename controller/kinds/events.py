"""Events of core/v1."""

from typing import Any, Final

from controller.kinds.columns import at, computed, dig, since
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, invalid


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

CORE_KINDS: Final = (EVENT,)

"""Cells of ``kubectl get`` tables, computed as upstream's printers do. Pure: ``now`` is an argument."""

from collections.abc import Callable
from typing import Any, Final

from common.clock import parse_rfc3339
from controller.kinds.kind import Column, Object

UNKNOWN: Final = "<unknown>"
NONE: Final = "<none>"


def dig(obj: Any, path: str, fallback: Any = None) -> Any:
    """Value at a dotted path, or ``fallback`` when any step is absent."""
    for part in path.split("."):
        if not isinstance(obj, dict):
            return fallback
        obj = obj.get(part)
    return fallback if obj is None else obj


def human_duration(seconds: float) -> str:
    """``duration.HumanDuration``: at most two units, coarser as it grows."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 60 * 2:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        rest = whole % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 60 * 3:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 24 * 8:
        rest = hours % 24
        return f"{hours // 24}d{rest}h" if rest else f"{hours // 24}d"
    if hours < 24 * 365 * 2:
        return f"{hours // 24}d"
    days, year = hours // 24, 24 * 365
    if hours < year * 8:
        rest = days % 365
        return f"{hours // year}y{rest}d" if rest else f"{hours // year}y"
    return f"{hours // year}y"


def since(stamp: Any, now: float) -> str:
    """Time since a ``metav1.Time`` in short form; ``<unknown>`` when absent."""
    if not isinstance(stamp, str):
        return UNKNOWN
    try:
        return human_duration(now - parse_rfc3339(stamp))
    except ValueError:
        return UNKNOWN


def _age(obj: Object, now: float) -> str:
    return since(dig(obj, "metadata.creationTimestamp"), now)


AGE: Final = Column("Age", "string", _age, description="Time since the object was created.")


def at(name: str, path: str, kind: str = "string", *, priority: int = 0, empty: Any = "") -> Column:
    """A column that shows one field."""

    def cell(obj: Object, now: float) -> Any:
        found = dig(obj, path)
        return empty if found in (None, "") else found

    return Column(name, kind, cell, priority)


def computed(
    name: str, cell: Callable[[Object], Any], kind: str = "string", *, priority: int = 0, format: str = ""
) -> Column:
    """A column whose cell needs no clock."""
    return Column(name, kind, lambda obj, now: cell(obj), priority, format)


def count(name: str, path: str) -> Column:
    """A column with the number of entries at one or more comma-separated paths."""
    paths = path.split(",")
    return Column(name, "string", lambda obj, now: sum(len(dig(obj, each, ())) for each in paths))


def format_labels(labels: dict[str, str] | None) -> str:
    """``a=b,c=d`` sorted, or ``<none>``."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def format_selector(selector: dict[str, Any] | None) -> str:
    """``metav1.FormatLabelSelector``."""
    if selector is None:
        return NONE
    parts = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or []:
        key, values = term.get("key", ""), ",".join(sorted(term.get("values") or []))
        match term.get("operator"):
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case _:
                parts.append(f"!{key}")
    return ",".join(sorted(parts)) or NONE


def _template_containers(obj: Object, field: str) -> str:
    containers = dig(obj, "spec.template.spec.containers", [])
    return ",".join(str(each.get(field, "")) for each in containers)


TEMPLATE_CONTAINERS: Final = computed("Containers", lambda obj: _template_containers(obj, "name"), priority=1)
TEMPLATE_IMAGES: Final = computed("Images", lambda obj: _template_containers(obj, "image"), priority=1)
SELECTOR: Final = computed("Selector", lambda obj: format_selector(dig(obj, "spec.selector")), priority=1)


def _realized(obj: Object) -> str:
    found = next((each for each in dig(obj, "status.conditions", []) if each.get("type") == "Realized"), None)
    return str(found.get("status")) if found else "Unknown"


REALIZED: Final = computed("Realized", _realized, priority=1)
"""Whether the object is in force on every host that must hold it."""

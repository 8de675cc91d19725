"""Tables and partial metadata: what kubectl prints instead of whole objects. Pure.

Spec: ``meta.k8s.io/v1`` Table, PartialObjectMetadata.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from common.clock import parse_rfc3339
from controller.kinds.kind import Column, Kind, Object

_NAME = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": "Name must be unique within a namespace.",
    "priority": 0,
}


def age(obj: Object, now: float) -> str:
    """``duration.HumanDuration`` since ``metadata.creationTimestamp``."""
    created = obj.get("metadata", {}).get("creationTimestamp")
    return human_duration(now - parse_rfc3339(created)) if created else "<unknown>"


def human_duration(seconds: float) -> str:
    """Two significant units, as ``kubectl get`` shows ages: ``119s``, ``3m20s``, ``10m``, ``2d3h``, ``3y``."""
    if seconds < -1:
        return "<invalid>"
    s = max(0, int(seconds))
    minutes, hours = s // 60, s // 3600
    if s < 120:
        return f"{s}s"
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return _human_days(hours)


def _human_days(hours: int) -> str:
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        years, rest = divmod(days, 365)
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{days // 365}y"


_AGE = Column("Age", "string", age, description="Time since the object was created.")


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The kind's own columns, or Age."""
    return kind.columns or (_AGE,)


def _names_itself(kind: Kind) -> bool:
    """Whether the kind says itself where its name stands: events show it last, and only when asked for more."""
    return any(column.name == _NAME["name"] for column in kind.columns)


def definitions(kind: Kind) -> list[Object]:
    """``columnDefinitions``."""
    return [
        *(() if _names_itself(kind) else (_NAME,)),
        *(
            {
                "name": column.name,
                "type": column.type,
                "format": column.format,
                "description": column.description,
                "priority": column.priority,
            }
            for column in columns_of(kind)
        ),
    ]


def row(kind: Kind, obj: Object, now: float, include: str) -> Object:
    """One ``TableRow``. ``include`` is the includeObject option: None, Metadata (default) or Object."""
    metadata = obj.get("metadata", {})
    cells: list[Any] = [] if _names_itself(kind) else [metadata.get("name", "")]
    cells += [_cell(column, obj, now) for column in columns_of(kind)]
    made: Object = {"cells": cells}
    if include == "Object":
        made["object"] = obj
    elif include != "None":
        made["object"] = partial(obj)
    return made


def _cell(column: Column, obj: Object, now: float) -> Any:
    try:
        return column.cell(obj, now)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        # A half-written status must not hide the object from whoever looks for what is wrong with it.
        return "<unknown>"


def table(kind: Kind, rows: Iterable[Object], metadata: Object, *, headers: bool = True) -> Object:
    """A ``Table``; ``headers=False`` for watch events after the first."""
    made: Object = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
    made["columnDefinitions"] = definitions(kind) if headers else None
    made["rows"] = list(rows)
    return made


def partial(obj: Object) -> Object:
    """``PartialObjectMetadata`` of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj.get("metadata", {})}


def partial_list(objects: Iterable[Object], metadata: Object) -> bytes:
    """``PartialObjectMetadataList``."""
    return orjson.dumps(
        {
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": [partial(obj) for obj in objects],
        }
    )

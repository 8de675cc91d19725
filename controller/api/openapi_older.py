"""Schemas of custom resources as OpenAPI v2 can say them. Pure.

Clients that read v2 take what is not named for forbidden, so what is open must name nothing.
Spec: apiextensions ``pkg/controller/openapi/v2`` and ``builder``.
"""

from typing import Any, Final

from controller.kinds.custom_schema import PRESERVE
from controller.kinds.kind import Object

_GVK: Final = "x-kubernetes-group-version-kind"
_V3_ONLY: Final = ("allOf", "anyOf", "nullable", "not", "oneOf")


def older(schema: Object) -> Object:
    """A kind's definition for v2."""
    if schema.get(PRESERVE):
        return {"type": "object", **({_GVK: schema[_GVK]} if _GVK in schema else {})}
    return _older(schema)


def _older(schema: Object) -> Object:
    made = {key: value for key, value in schema.items() if key not in _V3_ONLY}
    untyped = bool(schema.get("nullable"))
    if untyped or schema.get(PRESERVE):
        made.pop("items", None)
        made.pop("properties", None)
        untyped |= schema.get("type") in ("array", "object")
    if untyped:
        made.pop("type", None)
    if isinstance(made.get("properties"), dict):
        made["properties"] = {name: _older(below) for name, below in made["properties"].items()}
        needed = [name for name in made.pop("required", None) or () if not _nullable(schema["properties"].get(name))]
        if needed:
            made["required"] = needed
    for key in ("additionalProperties", "items"):
        if isinstance(made.get(key), dict):
            made[key] = _older(made[key])
    return made


def _nullable(schema: Any) -> bool:
    return isinstance(schema, dict) and bool(schema.get("nullable"))

"""Structural schemas of custom resources: what is unknown, what is filled in, what merges how. Pure.

Spec: apiextensions ``pkg/apiserver/schema``: structural schemas, pruning, defaulting.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Final

from controller.kinds.kind import Object
from controller.kinds.schemas import Schemas, Shape

PRESERVE: Final = "x-kubernetes-preserve-unknown-fields"
EMBEDDED: Final = "x-kubernetes-embedded-resource"
INT_OR_STRING: Final = "x-kubernetes-int-or-string"
OBJECT_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
HEAD: Final = ("apiVersion", "kind", "metadata")
_META_REF: Final = {"$ref": f"#/$defs/{OBJECT_META}"}
Found = Callable[[str], None]


class CustomStructure:
    """``schemas.Structure`` of one version of a custom resource."""

    def __init__(self, schema: Object) -> None:
        """``schema`` is the version's ``openAPIV3Schema``, already found to be structural."""
        self.schema = schema
        self._builtin = Schemas.load()
        self._shape: Shape | None = None

    @property
    def shape(self) -> Shape:
        """What patches and field ownership go by."""
        if self._shape is None:
            source = _shape_source(self.schema)
            text = {"type": "string"}
            head = {"apiVersion": text, "kind": text, "metadata": _META_REF}
            source["properties"] = {**source.get("properties", {}), **head}
            source["type"] = "object"
            self._shape = Shape(self._builtin, source)
        return self._shape

    def check(self, obj: Object) -> tuple[list[str], list[str]]:
        """(paths of unknown fields, decoding errors). Wrong types below metadata's level are validation's to tell."""
        unknown: list[str] = []
        prune(copy.deepcopy(obj), self.schema, unknown, root=True)
        below, errors = self._builtin.check(OBJECT_META, obj.get("metadata") or {})
        return unknown + [f"metadata.{path}" for path in below], errors

    def normalize(self, obj: Object) -> None:
        """Drop unknown fields, in place, and bring metadata to its stored form."""
        prune(obj, self.schema, [], root=True)
        if isinstance(obj.get("metadata"), dict):
            self._builtin.normalize(OBJECT_META, obj["metadata"])


def prune(value: Any, schema: Object, unknown: list[str], *, root: bool = False, path: str = "") -> None:
    """Drop what ``schema`` does not know, in place; ``unknown`` gets the paths."""
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, child in enumerate(value):
                prune(child, items, unknown, path=f"{path}[{index}]")
        return
    if not isinstance(value, dict):
        return
    properties: Object = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    embedded = root or bool(schema.get(EMBEDDED))
    for name in list(value):
        here = f"{path}.{name}" if path else name
        if embedded and name in HEAD:
            if name == "metadata" and not root and isinstance(value[name], dict):
                below, wrong = Schemas.load().check(OBJECT_META, value[name])
                unknown += [f"{here}.{each}" for each in below]
                if not wrong:
                    Schemas.load().normalize(OBJECT_META, value[name])
            continue
        if name in properties:
            prune(value[name], properties[name], unknown, path=here)
        elif isinstance(more, dict):
            prune(value[name], more, unknown, path=here)
        elif not more and not schema.get(PRESERVE):
            unknown.append(here)
            del value[name]


def fill(value: Any, schema: Object) -> bool:
    """Set the defaults of missing fields, and of those that are null and may not be, in place. True if any was set."""
    changed = False
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for child in value:
                changed |= fill(child, items)
        return changed
    if not isinstance(value, dict):
        return False
    properties: Object = schema.get("properties") or {}
    for name, below in properties.items():
        if "default" in below and (name not in value or (value[name] is None and not below.get("nullable"))):
            value[name] = copy.deepcopy(below["default"])
            changed = True
        if name in value:
            changed |= fill(value[name], below)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        for name, child in value.items():
            if name not in properties:
                changed |= fill(child, more)
    return changed


def _shape_source(schema: Object) -> Object:
    """As ``schemas.Shape`` reads it: extensions kept, what it has no words for is ``any``."""
    kept = {key: item for key, item in schema.items() if key.startswith("x-kubernetes-")}
    if schema.get(INT_OR_STRING):
        return kept
    source: Object = {**kept, "type": schema.get("type", "any")}
    if schema.get("properties"):
        source["properties"] = {name: _shape_source(below) for name, below in schema["properties"].items()}
    elif source["type"] == "object" and isinstance(schema.get("additionalProperties"), dict):
        source["additionalProperties"] = _shape_source(schema["additionalProperties"])
    elif source["type"] == "object":
        source["type"] = "any"
    if isinstance(schema.get("items"), dict):
        source["items"] = _shape_source(schema["items"])
    if schema.get(EMBEDDED):
        source.setdefault("properties", {})["metadata"] = _META_REF
        source["type"] = "object"
    return source


def subschemas(schema: Object, path: str) -> Iterator[tuple[Object, str]]:
    """The schemas directly below, with their paths."""
    for name, below in (schema.get("properties") or {}).items():
        yield below, f"{path}.properties[{name}]"
    for key in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(key), dict):
            yield schema[key], f"{path}.{key}"
    for key in ("allOf", "anyOf", "oneOf"):
        for index, below in enumerate(schema.get(key) or []):
            yield below, f"{path}.{key}[{index}]"

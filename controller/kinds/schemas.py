"""Field schemas of every kind: what decodes, what merges by which key, what lists are sets or maps.

The definitions of the built-in kinds are data of the installed package ``kubernetes-validate`` (Kubernetes' own
OpenAPI, reshaped for validation); this module undoes the reshaping. Ours (``network.sphere.io``) are in
``own_schemas.py``. Only structure is kept in memory; descriptions are read again when OpenAPI is served.
"""

import base64
import binascii
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from common.clock import parse_rfc3339, rfc3339, rfc3339_micro
from common.errors import ConfigError
from common.quantity import InvalidQuantity, Quantity
from controller.kinds.kind import Object
from controller.kinds.own_schemas import EXTRA_PROPERTIES, OWN_DEFINITIONS

VERSION: Final = "v1.36.0"
QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_ANY: Final = (
    "io.k8s.apimachinery.pkg.runtime.RawExtension",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray",
)
_TIMES: Final = (
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime",
)
_RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
DEPTH_MAX: Final = 64
_REF_PREFIX: Final = "#/$defs/"


def definitions_path() -> Path:
    """Where the installed package keeps its data. The package itself is never imported: that costs 100 ms."""
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the package kubernetes-validate is missing; install Sphere's pinned dependencies")
    base = Path(spec.submodule_search_locations[0])
    return base / "kubernetes-json-schema" / f"{VERSION}-local" / "_definitions.json"


def read_definitions() -> dict[str, Any]:
    """All definitions with their descriptions, in OpenAPI v2's shape (``#/definitions/`` is ``#/$defs/`` still)."""
    raw: dict[str, Any] = orjson.loads(definitions_path().read_bytes())["$defs"]
    raw.update(orjson.loads(orjson.dumps(OWN_DEFINITIONS)))
    for name, extra in EXTRA_PROPERTIES.items():
        raw[name].setdefault("properties", {}).update(extra)
    for definition in raw.values():
        _undo(definition)
    raw[QUANTITY] = {"type": "string", "description": raw[QUANTITY].get("description", "Quantity is a number.")}
    raw[INT_OR_STRING] = {"type": "string", "format": "int-or-string"}
    for name in _ANY:
        raw[name] = {"description": raw[name].get("description", ""), "type": "object"}
    return raw


def _undo(schema: dict[str, Any]) -> None:
    """Revert the package's local changes below one schema, in place."""
    kind = schema.get("type")
    if isinstance(kind, list):
        schema["type"] = next(item for item in kind if item != "null")
    for field in ("apiVersion", "kind"):
        prop = schema.get("properties", {}).get(field)
        if isinstance(prop, dict) and "x-kubernetes-group-version-kind" in schema:
            prop.pop("enum", None)
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    for child in _children(schema):
        _undo(child)


def _children(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from schema.get("properties", {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield schema[key]


class Shape:
    """One schema location. Everything a merge or a decoder needs to know of it.

    ``type`` is ``object`` (named fields), ``map`` (string keys), ``array``, ``string``, ``integer``, ``number``,
    ``boolean``, ``quantity``, ``int-or-string``, ``time`` or ``any``. ``definition`` is the definition's name for a
    reference, else empty. The patch and list attributes mirror the ``x-kubernetes-*`` extensions.
    """

    __slots__ = (
        "_fields",
        "_item",
        "_schemas",
        "_source",
        "definition",
        "format",
        "list_map_keys",
        "list_type",
        "map_type",
        "patch_merge_key",
        "patch_strategy",
        "required",
        "type",
    )

    def __init__(self, schemas: "Schemas", source: dict[str, Any]) -> None:
        self._schemas = schemas
        self.definition: str = source.get("$ref", "").removeprefix(_REF_PREFIX)
        target = schemas.raw(self.definition) if self.definition else source
        self._source = target
        self._fields: Mapping[str, Shape] | None = None
        self._item: Shape | None = None
        self.format: str = target.get("format", "")
        self.required: frozenset[str] = frozenset(target.get("required", ()))
        self.type: str = _shape_type(self.definition, target)
        self.patch_merge_key: str = source.get("x-kubernetes-patch-merge-key", "")
        strategy: str = source.get("x-kubernetes-patch-strategy", "")
        self.patch_strategy: frozenset[str] = frozenset(strategy.split(",")) - {""}
        self.list_type: str = source.get("x-kubernetes-list-type", "")
        self.list_map_keys: tuple[str, ...] = tuple(source.get("x-kubernetes-list-map-keys", ()))
        self.map_type: str = source.get("x-kubernetes-map-type") or target.get("x-kubernetes-map-type", "")

    @property
    def fields(self) -> Mapping[str, "Shape"]:
        """Named fields of an ``object``; empty for every other type."""
        if self._fields is None:
            if self.definition:
                self._fields = self._schemas.get(self.definition).fields
            else:
                properties = self._source.get("properties", {}) if self.type == "object" else {}
                self._fields = {name: Shape(self._schemas, prop) for name, prop in properties.items()}
        return self._fields

    @property
    def item(self) -> "Shape":
        """Shape of an array's items or a map's values; the ``any`` shape for every other type."""
        if self._item is None:
            source = self._source.get("items") or self._source.get("additionalProperties")
            self._item = Shape(self._schemas, source if isinstance(source, dict) else {})
        return self._item

    def field(self, name: str) -> "Shape":
        """Shape of a named field or of a map's value; the ``any`` shape when the schema does not know it."""
        if self.type == "map":
            return self.item
        return self.fields.get(name) or self._schemas.any


def _shape_type(definition: str, source: dict[str, Any]) -> str:
    if definition in _ANY:
        return "any"
    if definition == QUANTITY:
        return "quantity"
    if definition == INT_OR_STRING:
        return "int-or-string"
    if definition in _TIMES:
        return "time"
    kind: str = source.get("type", "any")
    if kind == "object" and "properties" not in source:
        return "map" if "additionalProperties" in source else ("object" if definition else "any")
    return kind


class Structure(Protocol):
    """How objects of one kind are decoded."""

    @property
    def shape(self) -> Shape:
        """What patches and field ownership go by."""
        ...

    def check(self, obj: Object) -> tuple[list[str], list[str]]:
        """As ``Schemas.check``."""
        ...

    def normalize(self, obj: Object) -> None:
        """As ``Schemas.normalize``."""
        ...


class Defined:
    """``Structure`` of a definition."""

    def __init__(self, schemas: "Schemas", name: str) -> None:
        self._schemas = schemas
        self._name = name

    @property
    def shape(self) -> Shape:
        return self._schemas.get(self._name)

    def check(self, obj: Object) -> tuple[list[str], list[str]]:
        return self._schemas.check(self._name, obj)

    def normalize(self, obj: Object) -> None:
        self._schemas.normalize(self._name, obj)


class Schemas:
    """Every definition by name. Build it with ``load``; shapes are made on first use and shared."""

    def __init__(self, definitions: dict[str, dict[str, Any]]) -> None:
        self._raw = definitions
        self._shapes: dict[str, Shape] = {}
        self._by_kind: dict[tuple[str, str, str], str] = {}
        self.any = Shape(self, {})

    @staticmethod
    @cache
    def load() -> "Schemas":
        """The one shared instance; reads the data file on the first call (about 30 ms)."""
        raw = read_definitions()
        for definition in raw.values():
            _drop_text(definition)
        return Schemas(raw)

    def __contains__(self, name: str) -> bool:
        return name in self._raw

    def raw(self, name: str) -> dict[str, Any]:
        """The definition itself, without descriptions. Raises ``KeyError``."""
        return self._raw[name]

    def by_kind(self, group: str, version: str, kind: str) -> str | None:
        """Name of the definition of an object of this kind, or None."""
        if not self._by_kind:
            for name, definition in self._raw.items():
                gvks = definition.get("x-kubernetes-group-version-kind") or []
                if len(gvks) == 1:
                    self._by_kind[gvks[0]["group"], gvks[0]["version"], gvks[0]["kind"]] = name
        return self._by_kind.get((group, version, kind))

    def get(self, name: str) -> Shape:
        """Shape of a definition. Raises ``KeyError`` for an unknown name."""
        shape = self._shapes.get(name)
        if shape is None:
            shape = self._shapes[name] = Shape(self, self._raw[name])
            shape.type = _shape_type(name, self._raw[name])
        return shape

    def check(self, definition: str, obj: Object) -> tuple[list[str], list[str]]:
        """Judge ``obj``: (paths of unknown fields as ``spec.containers[0].foo``, decoding errors).

        Decoding errors read as the API's: ``json: cannot unmarshal string into Go struct field
        DeploymentSpec.spec.replicas of type int32``. Nulls count as absent, as they do upstream.
        """
        unknown: list[str] = []
        errors: list[str] = []
        _check(self.get(definition), obj, _Place("", "", definition.rpartition(".")[2]), unknown, errors, 0)
        return unknown, errors

    def normalize(self, definition: str, obj: Object) -> None:
        """Bring a decoded object to stored form, in place: no unknown fields, no nulls, no empty optional lists or
        maps, quantities as canonical strings. The input must have passed ``check`` without decoding errors."""
        _normalize(self.get(definition), obj)


def _drop_text(schema: dict[str, Any]) -> None:
    if isinstance(schema.get("description"), str):
        del schema["description"]
    for child in _children(schema):
        _drop_text(child)


class _Place:
    """Where a value stands: ``path`` with indices for people, ``plain`` without for Go's words, ``struct`` name."""

    __slots__ = ("path", "plain", "struct")

    def __init__(self, path: str, plain: str, struct: str) -> None:
        self.path, self.plain, self.struct = path, plain, struct

    def under(self, name: str, struct: str = "") -> "_Place":
        dot = "." if self.path else ""
        return _Place(f"{self.path}{dot}{name}", f"{self.plain}{dot}{name}", struct or self.struct)

    def at(self, index: int) -> "_Place":
        return _Place(f"{self.path}[{index}]", self.plain, self.struct)


_JSON_NAMES: Final = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}
_GO_NAMES: Final = {"string": "string", "boolean": "bool", "map": "map[string]string", "number": "float64"}
_SCALARS: Final = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}


def _go_name(shape: Shape) -> str:
    if shape.type == "integer":
        return shape.format or "int64"
    if shape.type == "array":
        return f"[]{_go_struct(shape.item) or _go_name(shape.item)}"
    return _go_struct(shape) or _GO_NAMES.get(shape.type, shape.type)


def _go_struct(shape: Shape) -> str:
    if not shape.definition:
        return ""
    *_, package, name = shape.definition.split(".")
    return f"{package}.{name}"


def _wrong(shape: Shape, value: Any, place: _Place) -> str:
    what = _JSON_NAMES.get(type(value), "value")
    if what == "number" and (shape.type == "integer" or isinstance(value, float)):
        what = f"number {value}"
    where = f"Go struct field {place.struct}.{place.plain}" if place.plain else "Go value"
    return f"json: cannot unmarshal {what} into {where} of type {_go_name(shape)}"


def _check(shape: Shape, value: Any, place: _Place, unknown: list[str], errors: list[str], depth: int) -> None:
    if value is None or shape.type == "any":
        return
    if depth > DEPTH_MAX:
        errors.append("json: exceeded max depth")
        return
    match shape.type:
        case "object":
            if not isinstance(value, dict):
                errors.append(_wrong(shape, value, place))
                return
            struct = shape.definition.rpartition(".")[2] or place.struct
            fields = shape.fields
            for name, child in value.items():
                below = fields.get(name)
                if below is None:
                    unknown.append(place.under(name).path)
                else:
                    _check(below, child, place.under(name, struct), unknown, errors, depth + 1)
        case "map":
            if not isinstance(value, dict):
                errors.append(_wrong(shape, value, place))
                return
            for name, child in value.items():
                _check(shape.item, child, place.under(name), unknown, errors, depth + 1)
        case "array":
            if not isinstance(value, list):
                errors.append(_wrong(shape, value, place))
                return
            for index, child in enumerate(value):
                _check(shape.item, child, place.at(index), unknown, errors, depth + 1)
        case _:
            problem = _check_scalar(shape, value, place)
            if problem:
                errors.append(problem)


def _check_scalar(shape: Shape, value: Any, place: _Place) -> str:
    match shape.type:
        case "quantity":
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                return _wrong(shape, value, place)
            return _check_quantity(value)
        case "int-or-string":
            return "" if isinstance(value, str | int) and not isinstance(value, bool) else _wrong(shape, value, place)
        case "time":
            return _check_time(value, place, shape)
        case "string" if shape.format == "byte":
            return _check_base64(value, place, shape)
        case "integer":
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            bits = 31 if shape.format == "int32" else 63
            fits = whole and not isinstance(value, bool) and -(2**bits) <= int(value) < 2**bits
            return "" if fits else _wrong(shape, value, place)
        case _:
            allowed = _SCALARS[shape.type]
            good = isinstance(value, allowed) and (shape.type == "boolean" or not isinstance(value, bool))
            return "" if good else _wrong(shape, value, place)


def _check_quantity(value: str | int | float) -> str:
    try:
        Quantity.parse(value)
    except InvalidQuantity as err:
        return str(err)
    return ""


def _check_time(value: Any, place: _Place, shape: Shape) -> str:
    if not isinstance(value, str):
        return _wrong(shape, value, place)
    try:
        if not _RFC3339.fullmatch(value):
            raise ValueError
        parse_rfc3339(value)
    except ValueError:
        return f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
    return ""


def _check_base64(value: Any, place: _Place, shape: Shape) -> str:
    if not isinstance(value, str):
        return _wrong(shape, value, place)
    try:
        base64.b64decode("".join(value.split("\n")).replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        good = next((i for i, char in enumerate(value) if not (char.isascii() and (char.isalnum() or char in "+/"))), 0)
        return f"illegal base64 data at input byte {good}"
    return ""


def _stored_time(shape: Shape, value: str) -> str:
    """In UTC with ``Z``; whole seconds, or six digits of a ``MicroTime``: clients write the same time in many ways."""
    seconds = parse_rfc3339(value)
    return rfc3339_micro(seconds) if shape.definition.endswith("MicroTime") else rfc3339(seconds)


def _normalize(shape: Shape, value: Any) -> None:
    match shape.type:
        case "object":
            fields, required = shape.fields, shape.required
            for name in list(value):
                below = fields.get(name)
                child = value[name]
                if below is None or child is None:
                    del value[name]
                elif below.type == "quantity":
                    value[name] = str(Quantity.parse(child))
                elif below.type == "integer":
                    value[name] = int(child)
                elif below.type == "time":
                    value[name] = _stored_time(below, child)
                elif below.type in ("object", "map", "array"):
                    _normalize(below, child)
                    if not child and below.type != "object" and name not in required:
                        del value[name]
        case "map" | "array":
            kind = shape.item.type
            for key, child in list(value.items() if shape.type == "map" else enumerate(value)):
                if kind == "quantity" and child is not None:
                    value[key] = str(Quantity.parse(child))
                elif child is not None:
                    _normalize(shape.item, child)
        case _:
            return

"""From a CustomResourceDefinition to the kinds that it makes: one per served version. Pure."""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from controller.kinds import custom_definition, custom_validation
from controller.kinds.columns import AGE, dig, since
from controller.kinds.custom_schema import EMBEDDED, HEAD, OBJECT_META, CustomStructure, fill
from controller.kinds.jsonpath import compile_path
from controller.kinds.kind import VERBS, Column, Kind, Object, ResourceKey, ScalePaths, Stored, Subwrite
from controller.kinds.rules import Errors

ESTABLISHED: Final = "Established"
_LIST_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_DESCRIPTIONS: Final = {
    "apiVersion": "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
    "recognized schemas to the latest internal value, and may reject unrecognized values.",
    "kind": "Kind is a string value representing the REST resource this object represents.",
    "metadata": "Standard object's metadata.",
}


def is_established(definition: Object) -> bool:
    """Whether its resources may be served."""
    return any(
        each.get("type") == ESTABLISHED and each.get("status") == "True"
        for each in dig(definition, "status.conditions", [])
    )


def kinds_of(definition: Object) -> list[Kind]:
    """The served versions, that which is stored first. Empty unless it is established."""
    if not is_established(definition):
        return []
    found = sorted(custom_definition.versions(definition), key=lambda each: not each.get("storage"))
    # What is stored must be known even where nobody may ask for it.
    return [_kind(definition, each) for each in found if each.get("served") or each.get("storage")]


def _verbs(definition: Object, version: Object) -> tuple[str, ...]:
    if not version.get("served"):
        return ()
    ending = "deletionTimestamp" in definition["metadata"]
    return tuple(verb for verb in VERBS if verb != "create") if ending else VERBS


def _kind(definition: Object, version: Object) -> Kind:
    spec, names = definition["spec"], definition["spec"]["names"]
    schema: Object = dig(version, "schema.openAPIV3Schema", {})
    group, name = spec["group"], version["name"]
    stored = custom_definition.storage_version(definition)
    subresources = dig(version, "subresources", {})
    prefix = ".".join(reversed(group.split(".")))
    definitions = _definitions(f"{prefix}.{name}", group, name, names, schema)
    return Kind(
        group=group,
        version=name,
        kind=names["kind"],
        plural=names["plural"],
        schema=f"{prefix}.{name}.{names['kind']}",
        namespaced=spec.get("scope") == "Namespaced",
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or "",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=tuple(each for each in ("status", "scale") if each in subresources),
        verbs=_verbs(definition, version),
        columns=_columns(version),
        generation_fields=("*",),
        selectable_fields=_selectable(version),
        indexed_fields=_indexed(definition, version),
        default=lambda obj: _fill(obj, schema),
        validate=_validator(schema),
        subwrites={"status": Subwrite(_nothing, _no_errors)} if "status" in subresources else {},
        structure=CustomStructure(schema),
        definitions=definitions,
        definitions_digest=hashlib.sha256(orjson.dumps(definitions)).hexdigest(),
        stored=Stored(ResourceKey(group, names["plural"]), f"{group}/{stored}") if stored != name else None,
        unconditional_update=False,
        scale_paths=_scale_paths(subresources.get("scale")),
        deprecation=_deprecation(version, group, names["kind"]),
    )


def _nothing(obj: Object, old: Object) -> None:
    """The generic layer has already kept all but the status."""


def _no_errors(obj: Object, old: Object) -> Errors:
    return []


def _fill(obj: Object, schema: Object) -> None:
    metadata = obj.pop("metadata", {})
    fill(obj, schema)
    obj["metadata"] = metadata


def _validator(schema: Object) -> Callable[[Object], Errors]:
    meta: Object = dig(schema, "properties.metadata", {})
    names = {"type": "object", "properties": meta.get("properties") or {}}

    def validate(obj: Object) -> Errors:
        errors = custom_validation.validate(obj, schema)
        return errors + custom_validation.validate(obj.get("metadata") or {}, names, "metadata")

    return validate


def complete(kind: Kind, obj: Object) -> bool:
    """Bring a stored object to what its definition says today, in place: version and defaults. True if it changed."""
    changed = False
    if obj.get("apiVersion") != kind.api_version:
        obj["apiVersion"] = kind.api_version
        changed = True
    if isinstance(kind.structure, CustomStructure):
        metadata = obj.pop("metadata")
        changed |= fill(obj, kind.structure.schema)
        obj["metadata"] = metadata
    return changed


def _deprecation(version: Object, group: str, kind: str) -> str:
    if not version.get("deprecated"):
        return ""
    return str(version.get("deprecationWarning") or f"{group}/{version['name']} {kind} is deprecated")


def _scale_paths(scale: Mapping[str, Any] | None) -> ScalePaths | None:
    if scale is None:
        return None
    return ScalePaths(scale["specReplicasPath"], scale["statusReplicasPath"], scale.get("labelSelectorPath") or "")


def _selectable(version: Object) -> dict[str, Callable[[Object], str]]:
    return {
        str(each["jsonPath"]).lstrip("."): _text_at(each["jsonPath"]) for each in version.get("selectableFields") or []
    }


def _indexed(definition: Object, version: Object) -> dict[str, Callable[[Object], str]]:
    own, found = _selectable(version), {}
    for other in custom_definition.versions(definition):
        found.update(_selectable(other))
    return {path: text for path, text in found.items() if path not in own}


def _text_at(path: str) -> Callable[[Object], str]:
    find = compile_path(path)

    def text(obj: Object) -> str:
        found = find(obj)
        return _shown(found[0]) if found else ""

    return text


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _columns(version: Object) -> tuple[Column, ...]:
    given = version.get("additionalPrinterColumns") or []
    return tuple(_column(each) for each in given) or (AGE,)


def _column(given: Object) -> Column:
    find, kind = compile_path(given["jsonPath"]), given["type"]

    def cell(obj: Object, now: float) -> Any:
        found = find(obj)
        if not found:
            return None
        value = found[0] if len(found) == 1 else found
        match kind:
            case "date":
                return since(value, now)
            case "integer":
                return int(value) if isinstance(value, int | float) else None
            case "string":
                return _shown(value)
            case _:
                return value

    return Column(
        given["name"], kind, cell, given.get("priority") or 0, given.get("format") or "", given.get("description") or ""
    )


def _definitions(prefix: str, group: str, version: str, names: Object, schema: Object) -> dict[str, Object]:
    """Definitions of the kind and of its list, for OpenAPI."""
    kind = names["kind"]
    list_kind = names.get("listKind") or f"{kind}List"

    def gvk(name: str) -> list[Object]:
        return [{"group": group, "version": version, "kind": name}]

    made = _published(schema)
    made["type"] = "object"
    made["properties"] = {**(made.get("properties") or {}), **_head(OBJECT_META)}
    made["x-kubernetes-group-version-kind"] = gvk(kind)
    listed = {
        "type": "object",
        "description": f"{list_kind} is a list of {kind}",
        "required": ["items"],
        "properties": {
            **_head(_LIST_META),
            "items": {
                "type": "array",
                "items": {"$ref": f"#/$defs/{prefix}.{kind}"},
                "description": "List of objects.",
            },
        },
        "x-kubernetes-group-version-kind": gvk(list_kind),
    }
    return {f"{prefix}.{kind}": made, f"{prefix}.{kind}List": listed}


def _head(meta: str) -> Object:
    texts = {key: {"type": "string", "description": _DESCRIPTIONS[key]} for key in ("apiVersion", "kind")}
    return {**texts, "metadata": {"$ref": f"#/$defs/{meta}", "description": _DESCRIPTIONS["metadata"]}}


def _published(schema: Any) -> Any:
    """Embedded objects have a head, too."""
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _published(item) for key, item in schema.items()}
    if made.get(EMBEDDED) is True:
        properties = made.get("properties") or {}
        made["properties"] = {**properties, **{k: v for k, v in _head(OBJECT_META).items() if k in HEAD}}
    return made

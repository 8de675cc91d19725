"""CustomResourceDefinitions: defaults, validation, columns. What a definition makes is in ``custom_kind.py``.

Spec: apiextensions ``pkg/apis/apiextensions/validation``, ``pkg/apiserver/schema``.
"""

import copy
import re
from typing import Any, Final

from controller.kinds import custom_validation, expressions, rules
from controller.kinds.columns import at, dig
from controller.kinds.custom_schema import EMBEDDED, INT_OR_STRING, PRESERVE, fill, prune, subschemas
from controller.kinds.jsonpath import InvalidPath, compile_path
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, duplicate, forbidden, invalid, required
from controller.kinds.schemas import Schemas

GROUP: Final = "apiextensions.k8s.io"
FINALIZER: Final = "customresourcecleanup.apiextensions.k8s.io"
APPROVED: Final = "api-approved.kubernetes.io"
_JSON_SCHEMA: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_PROTECTED: Final = re.compile(r"(.*\.)?(k8s|kubernetes)\.io")
_TYPES: Final = ("array", "boolean", "integer", "number", "object", "string")
_SCOPES: Final = ("Cluster", "Namespaced")
_COLUMN_TYPES: Final = ("boolean", "date", "integer", "number", "string")


def versions(definition: Object) -> list[Object]:
    """``spec.versions``."""
    found: list[Object] = dig(definition, "spec.versions", [])
    return found


def storage_version(definition: Object) -> str:
    """Name of the version that is stored."""
    return next((str(each.get("name") or "") for each in versions(definition) if each.get("storage")), "")


def _default(definition: Object) -> None:
    spec = definition.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names["singular"] = names.get("singular") or str(names["kind"]).lower()
        names["listKind"] = names.get("listKind") or f"{names['kind']}List"
    conversion = spec.setdefault("conversion", {})
    conversion["strategy"] = conversion.get("strategy") or "None"
    if spec.get("preserveUnknownFields") is False:
        del spec["preserveUnknownFields"]


def _remember_storage(definition: Object) -> None:
    status = definition.setdefault("status", {})
    stored = status.setdefault("storedVersions", [])
    now = storage_version(definition)
    if now and now not in stored:
        stored.append(now)


def _prepare_create(definition: Object) -> None:
    definition["status"] = {}
    _remember_storage(definition)
    finalizers = definition["metadata"].setdefault("finalizers", [])
    if FINALIZER not in finalizers:
        finalizers.append(FINALIZER)


def _prepare_update(definition: Object, old: Object) -> None:
    _remember_storage(definition)


def _validate(definition: Object) -> Errors:
    spec = definition.get("spec") or {}
    group, names = spec.get("group") or "", spec.get("names") or {}
    name = dig(definition, "metadata.name", "")
    errors: Errors = []
    if names.get("plural") and group and name != f"{names['plural']}.{group}":
        errors.append(invalid("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    errors += rules.name("spec.group", group, rules.subdomain_problems)
    if group and "." not in group:
        errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    if _PROTECTED.fullmatch(group) and not dig(definition, "metadata.annotations", {}).get(APPROVED):
        detail = f'protected groups must have approval annotation "{APPROVED}", see '
        detail += "https://github.com/kubernetes/enhancements/pull/1111"
        errors.append(required(f"metadata.annotations[{APPROVED}]", detail))
    errors += rules.one_of("spec.scope", spec.get("scope"), _SCOPES)
    errors += _names(names)
    errors += _versions(definition)
    errors += _conversion(spec)
    if spec.get("preserveUnknownFields"):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        )
        errors.append(invalid("spec.preserveUnknownFields", True, detail))
    for index, stored in enumerate(dig(definition, "status.storedVersions", [])):
        if stored not in {each.get("name") for each in versions(definition)}:
            errors.append(
                invalid(
                    f"status.storedVersions[{index}]",
                    stored,
                    "missing from spec.versions; must not be removed while objects may be stored in it",
                )
            )
    return errors


def _names(names: Object) -> Errors:
    errors: Errors = []
    for key in ("plural", "singular", "kind", "listKind"):
        value = names.get(key) or ""
        if not value:
            errors.append(required(f"spec.names.{key}"))
            continue
        shown = value if key in ("plural", "singular") else value.lower()
        problems = rules.label_1035_problems(shown)
        lead = "may have mixed case, but should otherwise match: " if key in ("kind", "listKind") else ""
        errors += [invalid(f"spec.names.{key}", value, f"{lead}{text}") for text in problems]
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(invalid("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    for key in ("shortNames", "categories"):
        for index, value in enumerate(names.get(key) or []):
            path = f"spec.names.{key}[{index}]"
            errors += [invalid(path, value, text) for text in rules.label_1035_problems(value)]
    return errors


def _versions(definition: Object) -> Errors:
    errors: Errors = []
    found = versions(definition)
    if not found:
        return [required("spec.versions", "must have at least one version")]
    if sum(1 for each in found if each.get("storage")) != 1:
        errors.append(
            invalid(
                "spec.versions",
                [each.get("name") for each in found],
                "must have exactly one version marked as storage version",
            )
        )
    seen: set[str] = set()
    for index, version in enumerate(found):
        here, name = f"spec.versions[{index}]", version.get("name") or ""
        errors += rules.name(f"{here}.name", name, rules.label_1035_problems)
        if name in seen:
            errors.append(duplicate(f"{here}.name", name))
        seen.add(name)
        schema = dig(version, "schema.openAPIV3Schema")
        if schema is None:
            errors.append(required(f"{here}.schema.openAPIV3Schema", "schemas are required"))
        else:
            path = f"{here}.schema.openAPIV3Schema"
            errors += _malformed(schema, path) or _root(schema, path)
        errors += _columns(version, here)
        errors += _scale(dig(version, "subresources.scale"), f"{here}.subresources.scale")
    return errors


def _malformed(schema: Any, path: str) -> Errors:
    """Whether it is a JSON schema at all: decoding leaves open what stands below items and additionalProperties."""
    errors: Errors = []
    waiting = [(schema, path, True)]
    while waiting and len(errors) < custom_validation.ERRORS_MAX:
        node, here, undecoded = waiting.pop()
        wrong = [] if not undecoded else _undecodable(node)
        if wrong or not isinstance(node, dict):
            errors.append(invalid(here, "", wrong[0] if wrong else "must be a schema"))
            continue
        items, more = node.get("items"), node.get("additionalProperties")
        if not isinstance(items, dict | None) or not isinstance(more, dict | bool | None):
            errors.append(invalid(here, "", "items must be one schema, additionalProperties a schema or a boolean"))
            continue
        waiting += [
            (below, at, at.endswith((".items", ".additionalProperties"))) for below, at in subschemas(node, here)
        ]
    return errors


def _undecodable(schema: Any) -> list[str]:
    return Schemas.load().check(_JSON_SCHEMA, schema)[1] if isinstance(schema, dict) else ["must be a schema"]


def _root(schema: Object, path: str) -> Errors:
    errors: Errors = []
    if schema.get("type") != "object":
        found = schema.get("type") or ""
        errors.append(
            invalid(f"{path}.type", found, "must be object at the root")
            if found
            else required(f"{path}.type", "must not be empty at the root")
        )
    if schema.get("nullable"):
        errors.append(forbidden(f"{path}.nullable", "nullable cannot be true at the root"))
    meta = (schema.get("properties") or {}).get("metadata") or {}
    extra = sorted({key for key in meta if key not in ("type", "description", "properties")})
    if extra or set(meta.get("properties") or {}) - {"name", "generateName"}:
        detail = "must not specify anything other than name and generateName, but metadata is implicitly specified"
        errors.append(forbidden(f"{path}.properties[metadata]", detail))
    _structural(schema, path, errors, root=True)
    return errors


def _structural(schema: Object, path: str, errors: Errors, *, root: bool = False, logic: bool = False) -> None:
    """Whether it is structural; ``logic`` is below allOf, anyOf, oneOf or not, where only values are judged."""
    kind, free = schema.get("type"), schema.get(INT_OR_STRING) or schema.get(PRESERVE)
    if logic:
        errors += [
            forbidden(f"{path}.{key}", "must be empty to be structural")
            for key in ("type", "additionalProperties", "default", "nullable", "description", PRESERVE, EMBEDDED)
            if schema.get(key) and not (key == "type" and schema.get("type") in ("integer", "string"))
        ]
    elif not kind and not free and not root:
        place = "array items" if path.endswith(".items") else "object fields"
        errors.append(required(f"{path}.type", f"must not be empty for specified {place}"))
    if kind and kind not in _TYPES:
        errors.append(rules.not_supported(f"{path}.type", kind, _TYPES))
    if kind == "array" and not logic and not isinstance(schema.get("items"), dict):
        errors.append(required(f"{path}.items", "must be specified"))
    if schema.get(INT_OR_STRING) and kind:
        errors.append(forbidden(f"{path}.type", "must be empty if x-kubernetes-int-or-string is true"))
    if schema.get(EMBEDDED) and kind != "object":
        errors.append(invalid(f"{path}.type", kind, "must be object if x-kubernetes-embedded-resource is true"))
    if schema.get("properties") and schema.get("additionalProperties") not in (None, False):
        errors.append(
            forbidden(f"{path}.additionalProperties", "additionalProperties and properties are mutual exclusive")
        )
    if schema.get("uniqueItems"):
        errors.append(
            forbidden(
                f"{path}.uniqueItems",
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            )
        )
    errors += [
        forbidden(f"{path}.{key}", f"{key} is not supported")
        for key in ("$ref", "definitions", "dependencies", "patternProperties", "id")
        if schema.get(key)
    ]
    _list(schema, path, errors)
    _values(schema, path, errors)
    for index, each in enumerate(schema.get("x-kubernetes-validations") or []):
        here, text = f"{path}.x-kubernetes-validations[{index}].rule", str(each.get("rule") or "").strip()
        errors += expressions.check(here, text) if text else [required(here, "rule is not specified")]
    for below, there in subschemas(schema, path):
        deeper = logic or there.endswith(".not") or bool(re.search(r"\.(allOf|anyOf|oneOf)\[\d+\]$", there))
        if root and there in (
            f"{path}.properties[apiVersion]",
            f"{path}.properties[kind]",
            f"{path}.properties[metadata]",
        ):
            continue
        _structural(below, there, errors, logic=deeper)


def _list(schema: Object, path: str, errors: Errors) -> None:
    kind, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys")
    if kind not in (None, "atomic", "map", "set"):
        errors.append(rules.not_supported(f"{path}.x-kubernetes-list-type", kind, ("atomic", "map", "set")))
    if kind and schema.get("type") != "array":
        errors.append(
            invalid(f"{path}.type", schema.get("type"), "must be array if x-kubernetes-list-type is specified")
        )
    if kind == "map" and not keys:
        errors.append(
            required(f"{path}.x-kubernetes-list-map-keys", "must not be empty if x-kubernetes-list-type is map")
        )
    if keys and kind != "map":
        detail = "must be map if x-kubernetes-list-map-keys is non-empty"
        errors.append(invalid(f"{path}.x-kubernetes-list-type", kind, detail))
    items = schema.get("items") or {}
    for key in keys if kind == "map" and keys else []:
        if key not in (items.get("properties") or {}):
            errors.append(
                invalid(f"{path}.x-kubernetes-list-map-keys", key, "entries must all be names of item properties")
            )
        elif key not in (items.get("required") or []) and "default" not in items["properties"][key]:
            where = f"{path}.items.properties[{key}].default"
            errors.append(
                required(
                    where,
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a "
                    "required property",
                )
            )


def _values(schema: Object, path: str, errors: Errors) -> None:
    if schema.get("pattern"):
        try:
            custom_validation.compiled(schema["pattern"])
        except re.error as err:
            detail = f"must be a valid regular expression, but isn't: {err}"
            errors.append(invalid(f"{path}.pattern", schema["pattern"], detail))
    if schema.get("default") is None:
        return
    found: list[str] = []
    value = copy.deepcopy(schema["default"])
    prune(value, schema, found)
    if found:
        errors.append(invalid(f"{path}.default", schema["default"], "must not have unknown fields"))
    fill(value, schema)
    errors += custom_validation.validate(value, schema, f"{path}.default")


def _columns(version: Object, path: str) -> Errors:
    errors: Errors = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or []):
        here = f"{path}.additionalPrinterColumns[{index}]"
        if not column.get("name"):
            errors.append(required(f"{here}.name"))
        errors += rules.one_of(f"{here}.type", column.get("type"), _COLUMN_TYPES)
        errors += _path(column.get("jsonPath"), f"{here}.jsonPath")
    for index, field in enumerate(version.get("selectableFields") or []):
        errors += _path(field.get("jsonPath"), f"{path}.selectableFields[{index}].jsonPath")
    return errors


def _path(text: Any, where: str) -> Errors:
    if not text:
        return [required(where)]
    try:
        compile_path(text)
    except InvalidPath as err:
        return [invalid(where, text, f"is an invalid path: {err}")]
    return []


def _scale(scale: Any, path: str) -> Errors:
    if scale is None:
        return []
    errors = _path(scale.get("specReplicasPath"), f"{path}.specReplicasPath")
    errors += _path(scale.get("statusReplicasPath"), f"{path}.statusReplicasPath")
    for key, lead in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        if scale.get(key) and not str(scale[key]).startswith(lead):
            errors.append(invalid(f"{path}.{key}", scale[key], f"should be a json path under {lead[:-1]}"))
    return errors


def _conversion(spec: Object) -> Errors:
    strategy = dig(spec, "conversion.strategy")
    errors = rules.one_of("spec.conversion.strategy", strategy, ("None", "Webhook"))
    if strategy == "Webhook" and dig(spec, "conversion.webhook.clientConfig") is None:
        errors.append(required("spec.conversion.webhook", "required when strategy is set to Webhook"))
    if strategy == "None" and dig(spec, "conversion.webhook") is not None:
        errors.append(forbidden("spec.conversion.webhook", "should not be set when strategy is not set to Webhook"))
    return errors


def _validate_update(definition: Object, old: Object) -> Errors:
    established = any(
        each.get("type") == "Established" and each.get("status") == "True" for each in dig(old, "status.conditions", [])
    )
    errors = rules.immutable("spec.group", dig(definition, "spec.group"), dig(old, "spec.group"))
    if established:
        for key in ("scope", "names.kind", "names.plural"):
            errors += rules.immutable(f"spec.{key}", dig(definition, f"spec.{key}"), dig(old, f"spec.{key}"))
    return errors


CUSTOM_RESOURCE_DEFINITION: Final = Kind(
    group=GROUP,
    version="v1",
    kind="CustomResourceDefinition",
    plural="customresourcedefinitions",
    schema="io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    namespaced=False,
    singular="customresourcedefinition",
    short_names=("crd", "crds"),
    subresources=("status",),
    categories=("api-extensions",),
    columns=(at("Created At", "metadata.creationTimestamp", "date"),),
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
    validate_update=_validate_update,
)

KINDS: Final = (CUSTOM_RESOURCE_DEFINITION,)

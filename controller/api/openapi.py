"""OpenAPI v2 and v3 of everything served, made on demand from the schemas and the registry.

Law: nothing is kept decoded; finished documents are kept as bytes, the few most recent ones only.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import orjson

from controller.api import openapi_wire
from controller.api.api import Call, Routes
from controller.api.openapi_older import older
from controller.api.request import Answer, Reply
from controller.api.status import ApiError, no_such_path
from controller.kinds import schemas as kind_schemas
from controller.kinds.kind import Kind, Object
from controller.kinds.own_schemas import EXTRA_PROPERTIES, OWN_DEFINITIONS
from controller.kinds.schemas import INT_OR_STRING, QUANTITY

KEPT_MAX: Final = 4
_JSON: Final = "application/json"
_PATCHES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_PROTOBUF_V2: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""Clients ask with ``@v1.0``, which is no valid media type, and are answered with this one."""
_ANY_NAMES: Final = ("JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray")
_GVK: Final = "x-kubernetes-group-version-kind"
Kinds = Callable[[], Iterable[Kind]]


def install(routes: Routes, kinds: Kinds) -> None:
    """Serve ``/openapi/v2`` and ``/openapi/v3``."""
    documents = OpenApi(kinds)
    routes.paths["/openapi/v2"] = documents.v2
    routes.paths["/openapi/v3"] = documents.index
    routes.prefixes["/openapi/v3/"] = documents.v3


def group_path(group: str, version: str) -> str:
    """``api/v1`` or ``apis/<group>/<version>``."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


class OpenApi:
    """The handlers."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def _versions(self) -> dict[str, tuple[str, str]]:
        return {group_path(kind.group, kind.version): (kind.group, kind.version) for kind in self._kinds()}

    def etag(self, what: str) -> str:
        """Changes whenever the document could: with the data package, the kinds that it is of, or what we add."""
        about = self._versions().get(what)
        kinds = [kind for kind in self._kinds() if about in (None, (kind.group, kind.version))]
        digest = hashlib.sha512(f"{kind_schemas.VERSION}/{kind_schemas.definitions_path()}/{what}".encode())
        served = sorted((k.group, k.version, k.kind, k.plural, k.definitions_digest) for k in kinds)
        digest.update(repr(served).encode())
        digest.update(orjson.dumps([OWN_DEFINITIONS, EXTRA_PROPERTIES]))
        return digest.hexdigest().upper()

    async def index(self, call: Call) -> Answer:
        paths = {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self.etag(path)}"}
            for path in sorted(self._versions())
        }
        return Reply(200, orjson.dumps({"paths": paths}))

    async def v3(self, call: Call) -> Answer:
        path = call.request.path.removeprefix("/openapi/v3/").strip("/")
        found = self._versions().get(path)
        if found is None:
            raise no_such_path()
        return self._reply(call, path, lambda: orjson.dumps(self.document_v3(*found)))

    async def v2(self, call: Call) -> Answer:
        accept = call.request.headers.get("Accept", "")
        if _PROTOBUF_V2 in accept.replace("@", ".") and "json" not in accept:
            # kubectl before 1.27 reads it for all that it does with schemas, later ones only for kinds that v3 lacks.
            return self._reply(call, "v2.protobuf", lambda: openapi_wire.encode(self.document_v2()), _PROTOBUF_V2)
        if accept and not any(each in accept for each in ("json", "*/*", "application/*")):
            raise ApiError(406, "NotAcceptable", f"only the following media types are accepted: {_JSON}")
        return self._reply(call, "v2", lambda: orjson.dumps(self.document_v2()))

    def _reply(self, call: Call, what: str, make: Callable[[], bytes], kind: str = _JSON) -> Reply:
        etag = f'"{self.etag(what)}"'
        headers = {"ETag": etag, "Vary": "Accept"}
        if call.request.text("hash"):
            headers["Cache-Control"] = "public, immutable"
        if call.request.headers.get("If-None-Match") == etag:
            return Reply(304, b"", kind, headers)
        body = self._kept.get(etag)
        if body is None:
            body = self._kept[etag] = make()
            if len(self._kept) > KEPT_MAX:
                self._kept.popitem(last=False)
        self._kept.move_to_end(etag)
        return Reply(200, body, kind, headers)

    def _definitions(self) -> Object:
        definitions = kind_schemas.read_definitions()
        for kind in self._kinds():
            definitions.update(kind.definitions)
        return definitions

    def _older_definitions(self) -> Object:
        definitions = kind_schemas.read_definitions()
        for kind in self._kinds():
            definitions.update((name, older(schema)) for name, schema in kind.definitions.items())
        return definitions

    def document_v3(self, group: str, version: str) -> Object:
        """The document of one group and version."""
        definitions = self._definitions()
        kinds = [kind for kind in self._kinds() if (kind.group, kind.version) == (group, version)]
        paths: Object = {}
        for kind in kinds:
            paths.update(paths_of(kind, _operation_v3))
        names = closure(definitions, _roots(definitions, kinds, group, version))
        components = {name: _to_v3(name, definitions[name]) for name in names}
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": kind_schemas.VERSION},
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
            },
        }

    def document_v2(self) -> Object:
        """The one document of everything."""
        definitions = self._older_definitions()
        paths: Object = {}
        for kind in self._kinds():
            paths.update(paths_of(kind, _operation_v2))
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": kind_schemas.VERSION},
            "paths": paths,
            "definitions": {name: _rewrite(schema, "#/definitions/") for name, schema in sorted(definitions.items())},
        }


# ---- schemas -------------------------------------------------------------------------------------------------


def _roots(definitions: Object, kinds: Iterable[Kind], group: str, version: str) -> Iterator[str]:
    for kind in kinds:
        yield kind.schema
    for name, schema in definitions.items():
        gvks = schema.get(_GVK) or []
        if len(gvks) == 1 and (gvks[0]["group"], gvks[0]["version"]) == (group, version):
            yield name
    yield from (f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}" for name in ("DeleteOptions", "Patch", "Status"))


def closure(definitions: Object, roots: Iterable[str]) -> list[str]:
    """Names reachable from ``roots`` by references, sorted."""
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in definitions:
            continue
        seen.add(name)
        waiting += _references(definitions[name])
    return sorted(seen)


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str):
            yield target.rpartition("/")[2]
        for child in schema.values():
            yield from _references(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from _references(child)


def _rewrite(schema: Any, prefix: str) -> Any:
    """References under another prefix; below v3, a reference with siblings is wrapped in ``allOf``."""
    if isinstance(schema, list):
        return [_rewrite(child, prefix) for child in schema]
    if not isinstance(schema, dict):
        return schema
    target = schema.get("$ref")
    if not isinstance(target, str):
        return {key: _rewrite(child, prefix) for key, child in schema.items()}
    reference = {"$ref": prefix + target.rpartition("/")[2]}
    rest = {key: child for key, child in schema.items() if key != "$ref"}
    if not rest or "components" not in prefix:
        return {**reference, **rest}
    return {"allOf": [reference], **rest}


def _to_v3(name: str, schema: Object) -> Object:
    text = {"description": schema["description"]} if schema.get("description") else {}
    if name == QUANTITY:
        return {**text, "oneOf": [{"type": "string"}, {"type": "number"}]}
    if name == INT_OR_STRING:
        return {**text, "format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if name.rpartition(".")[2] in _ANY_NAMES:
        return text
    rewritten: Object = _rewrite(schema, "#/components/schemas/")
    return rewritten


# ---- paths ---------------------------------------------------------------------------------------------------

Operation = Callable[[Kind, str, str, str], Object]


def paths_of(kind: Kind, operation: Operation) -> Object:
    """Paths of one kind: collections, the object, its subresources."""
    base = f"/{group_path(kind.group, kind.version)}"
    inside = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    names = ["namespace"] if kind.namespaced else []
    found: Object = {}
    if kind.namespaced and "list" in kind.verbs:
        found[f"{base}/{kind.plural}"] = {"get": operation(kind, "list", "", "AllNamespaces")}
    verbs = {"get": "list", "post": "create", "delete": "deletecollection"}
    collection = {method: operation(kind, verb, "", "") for method, verb in verbs.items() if verb in kind.verbs}
    if collection:
        found[inside] = {**collection, "parameters": [_path_parameter(name) for name in names]}
    verbs = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
    item = {method: operation(kind, verb, "", "") for method, verb in verbs.items() if verb in kind.verbs}
    parameters = [_path_parameter(name) for name in (*names, "name")]
    found[f"{inside}/{{name}}"] = {**item, "parameters": parameters}
    for sub in kind.subresources:
        if sub in ("status", "scale", "finalize", "approval", "ephemeralcontainers", "resize"):
            methods = {method: operation(kind, verb, sub, "") for method, verb in verbs.items() if method != "delete"}
        elif sub in ("binding", "eviction", "token"):
            methods = {"post": operation(kind, "create", sub, "")}
        else:
            methods = {"get": operation(kind, "connect", sub, "")}
        found[f"{inside}/{{name}}/{sub}"] = {**methods, "parameters": parameters}
    return found


def _path_parameter(name: str) -> Object:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "uniqueItems": True,
        "schema": {"type": "string"},
        "type": "string",
    }


_ACTIONS: Final = {"list": "list", "create": "post", "update": "put", "deletecollection": "deletecollection"}
_QUERY: Final = {
    "create": ("dryRun", "fieldManager", "fieldValidation", "pretty"),
    "update": ("dryRun", "fieldManager", "fieldValidation", "pretty"),
    "patch": ("dryRun", "fieldManager", "fieldValidation", "force", "pretty"),
    "delete": ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy", "pretty"),
    "list": ("continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "watch", "pretty"),
    "deletecollection": ("continue", "dryRun", "fieldSelector", "labelSelector", "limit", "propagationPolicy"),
}
_NUMBERS: Final = ("gracePeriodSeconds", "limit")
_FLAGS: Final = ("orphanDependents", "watch", "force")


def _common(kind: Kind, verb: str, sub: str, suffix: str) -> Object:
    version = kind.version.capitalize()
    group = kind.group.split(".")[0].capitalize() if kind.group else "Core"
    scope = "Namespaced" if kind.namespaced and not suffix else ""
    return {
        "operationId": f"{verb}{group}{version}{scope}{kind.kind}{sub.capitalize()}{suffix}",
        "description": f"{verb} {kind.kind}" + (f" {sub}" if sub else ""),
        "tags": [f"{group.lower()}_{kind.version}"],
        "x-kubernetes-action": _ACTIONS.get(verb, verb),
        _GVK: _gvk(kind, sub),
    }


def _gvk(kind: Kind, sub: str) -> Object:
    special = {
        "scale": ("autoscaling", "v1", "Scale"),
        "eviction": ("policy", "v1", "Eviction"),
        "binding": ("", "v1", "Binding"),
        "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    }
    group, version, name = special.get(sub, (kind.group, kind.version, kind.kind))
    return {"group": group, "version": version, "kind": name}


def _type_of(parameter: str) -> str:
    return "integer" if parameter in _NUMBERS else "boolean" if parameter in _FLAGS else "string"


def _patches(kind: Kind) -> tuple[str, ...]:
    """Clients read here which patches they may send."""
    return _PATCHES if kind.structure is None else tuple(each for each in _PATCHES if each != _STRATEGIC)


def _schema_of(kind: Kind, verb: str) -> str:
    return f"{kind.schema}List" if verb == "list" else kind.schema


def _operation_v3(kind: Kind, verb: str, sub: str, suffix: str) -> Object:
    made = _common(kind, verb, sub, suffix)
    made["parameters"] = [
        {"name": each, "in": "query", "uniqueItems": True, "schema": {"type": _type_of(each), "uniqueItems": True}}
        for each in _QUERY.get(verb, ())
    ]
    reference = {"schema": {"$ref": f"#/components/schemas/{_schema_of(kind, verb)}"}}
    made["responses"] = {"200": {"description": "OK", "content": {_JSON: reference}}}
    if verb in ("create", "update"):
        made["requestBody"] = {"content": {"*/*": reference}, "required": True}
    elif verb == "patch":
        patch = {"schema": {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}}
        made["requestBody"] = {"content": dict.fromkeys(_patches(kind), patch), "required": True}
    return made


def _operation_v2(kind: Kind, verb: str, sub: str, suffix: str) -> Object:
    made = _common(kind, verb, sub, suffix)
    made["consumes"] = list(_patches(kind)) if verb == "patch" else ["*/*"]
    made["produces"] = [_JSON]
    made["schemes"] = ["https"]
    parameters = [{"name": e, "in": "query", "type": _type_of(e), "uniqueItems": True} for e in _QUERY.get(verb, ())]
    reference = {"$ref": f"#/definitions/{_schema_of(kind, verb)}"}
    if verb in ("create", "update", "patch"):
        patch = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}
        parameters.append(
            {"name": "body", "in": "body", "required": True, "schema": patch if verb == "patch" else reference}
        )
    made["parameters"] = parameters
    made["responses"] = {"200": {"description": "OK", "schema": reference}, "401": {"description": "Unauthorized"}}
    return made

"""The request pipeline: authenticate, understand the path, authorize, route to the verb."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import orjson

from common.logs import logger
from common.selectors import InvalidSelector, parse_field_selector
from controller.api import body as bodies
from controller.api import reads
from controller.api.access import Attributes, Authenticator, Authorizer, denied_message
from controller.api.admission import Admission
from controller.api.authn import impersonated
from controller.api.deletion import Deleter, options_of
from controller.api.metrics import ApiMetrics
from controller.api.negotiate import negotiate
from controller.api.patching import Patcher
from controller.api.ports import Ports
from controller.api.request import Answer, Reply, Request, parse_target, verb_of
from controller.api.scale import get_scale, update_scale
from controller.api.selection import list_options, selection_of
from controller.api.status import (
    ApiError,
    bad_request,
    forbidden,
    invalid,
    method_not_allowed,
    no_such_path,
)
from controller.api.watch import watch
from controller.api.writes import WriteOptions, Writer
from controller.kinds.kind import FieldError, Kind, ResourceKey

log = logger("api")
_STORED_SUBRESOURCES = frozenset({"status", "finalize", "approval", "ephemeralcontainers", "resize"})


@dataclass(frozen=True, slots=True)
class Call:
    """An authorized request as a registered handler sees it."""

    api: "Api"
    request: Request
    kind: Kind | None


class SubresourceHandler(Protocol):
    """Serves one subresource, all methods of it. Raises ``ApiError``."""

    def __call__(self, call: Call) -> Awaitable[Answer]: ...


@dataclass(slots=True)
class Routes:
    """What other modules serve: subresources, virtual resources, and paths outside of the resource API."""

    subresources: dict[tuple[ResourceKey, str], SubresourceHandler] = field(default_factory=dict)
    resources: dict[ResourceKey, SubresourceHandler] = field(default_factory=dict)
    """Resources that are not stored, for example SubjectAccessReviews."""
    paths: dict[str, SubresourceHandler] = field(default_factory=dict)
    """Exact paths."""
    prefixes: dict[str, SubresourceHandler] = field(default_factory=dict)
    """Paths that start with the key."""


class Api:
    """Everything a request passes through."""

    def __init__(
        self,
        ports: Ports,
        authenticator: Authenticator,
        authorizer: Authorizer,
        admission: Admission,
        routes: Routes,
        metrics: ApiMetrics,
    ) -> None:
        self.ports = ports
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.admission = admission
        self.routes = routes
        self.metrics = metrics
        self.writer = Writer(ports, admission)
        self.deleter = Deleter(ports, admission)
        self.patcher = Patcher(ports, self.writer)

    async def handle(self, request: Request) -> Answer:
        """Answer one request; never raises for anything a client can send."""
        started = time.perf_counter()
        code = 500
        try:
            answer = await self._handle(request)
            code = answer.status if isinstance(answer, Reply) else 200
        except ApiError as err:
            code = err.code
            return self._refusal(request, err)
        finally:
            self.metrics.request(request, code, time.perf_counter() - started)
        if isinstance(answer, Reply) and request.warnings:
            answer.headers["Warning"] = ", ".join(_warning(text) for text in request.warnings)
        return answer

    def _refusal(self, request: Request, err: ApiError) -> Reply:
        headers = dict(err.headers)
        if request.warnings:
            headers["Warning"] = ", ".join(_warning(text) for text in request.warnings)
        return Reply(err.code, orjson.dumps(err.status()), headers=headers)

    async def _handle(self, request: Request) -> Answer:
        request.user = self.authenticator.authenticate(request.peer, request.headers.get("Authorization"))
        if any(name.lower().startswith("impersonate-") for name in request.headers):
            headers = [(name.lower(), value) for name, value in request.headers.items()]
            request.user = impersonated(request.user, headers, self.authorizer)
        target = request.target = parse_target(request.path)
        request.verb = verb_of(request.method, target, request.flag("watch"))
        attributes = _attributes(request)
        decision = self.authorizer.authorize(request.user, attributes)
        if not decision.allowed:
            why = denied_message(request.user, attributes, decision.reason)
            if not target.resource:
                raise ApiError(403, "Forbidden", f"forbidden: {why}")
            raise forbidden(target.key, target.name, why)
        if not target.resource:
            return await self._path(request)
        return await self._resource(request)

    async def _path(self, request: Request) -> Answer:
        path = request.path.rstrip("/") or "/"
        handler = self.routes.paths.get(path)
        if handler is None:
            handler = next((h for prefix, h in self.routes.prefixes.items() if path.startswith(prefix)), None)
        if handler is None:
            raise no_such_path()
        return await handler(Call(self, request, None))

    async def _resource(self, request: Request) -> Answer:
        target = request.target
        virtual = self.routes.resources.get(target.key)
        kind = self.ports.kinds.lookup(target.group, target.version, target.resource)
        if virtual is not None:
            return await virtual(Call(self, request, kind))
        if kind is None:
            raise no_such_path()
        if target.subresource:
            return await self._subresource(request, kind)
        nameless = request.verb in ("update", "patch") and not target.name
        if request.verb not in kind.verbs or nameless or (request.verb == "create" and target.name):
            raise method_not_allowed()
        if kind.namespaced and not target.namespace and request.verb not in ("list", "watch"):
            raise no_such_path() if target.name else bad_request("namespace is required for this resource")
        if kind.deprecation:
            request.warnings.append(kind.deprecation)
        return await _VERBS[request.verb](self, request, kind)

    async def _subresource(self, request: Request, kind: Kind) -> Answer:
        target = request.target
        handler = self.routes.subresources.get((kind.key, target.subresource))
        if handler is not None:
            return await handler(Call(self, request, kind))
        if target.subresource not in kind.subresources:
            raise no_such_path()
        if target.subresource == "scale":
            if request.verb == "get":
                return await get_scale(self.ports, request, kind)
            return await update_scale(self, request, kind)
        if target.subresource in _STORED_SUBRESOURCES and request.verb in ("get", "update", "patch"):
            return await _VERBS[request.verb](self, request, kind)
        raise method_not_allowed()

    def write_options(self, request: Request, *, apply: bool = False) -> WriteOptions:
        """Options of a write, from query and headers. Raises ``ApiError``."""
        manager = request.text("fieldManager") or request.headers.get("User-Agent", "").split("/")[0] or "unknown"
        if len(manager) > 128 or not manager.isprintable():
            detail = "may not be more than 128 printable characters"
            raise invalid(
                "meta.k8s.io", "CreateOptions", "", [FieldError("FieldValueInvalid", "fieldManager", detail, manager)]
            )
        return WriteOptions(
            user=request.user,
            manager=manager,
            dry_run=dry_run(request),
            strict=bodies.strictness(request.text("fieldValidation")),
            apply=apply,
            warnings=request.warnings,
        )


def _attributes(request: Request) -> Attributes:
    """What the authorizer is asked. A list or watch of one object by field selector counts as naming it.

    Spec: kube ``apiserver/pkg/endpoints/request`` RequestInfo. A node may watch a Secret that its pods name, not all.
    """
    attributes = request.target.attributes(request.verb)
    selector = request.text("fieldSelector")
    if attributes.name or not selector or request.verb not in ("list", "watch", "deletecollection"):
        return attributes
    try:
        name = parse_field_selector(selector).required("metadata.name")
    except InvalidSelector:
        return attributes  # refused later, with its reason, if the list is allowed at all
    return replace(attributes, name=name or "")


def dry_run(request: Request) -> bool:
    """The dryRun option. Raises ``ApiError`` 422 for anything but All."""
    values = [value for value in request.query.get("dryRun", ()) if value]
    if any(value != "All" for value in values):
        error = FieldError("FieldValueNotSupported", "dryRun", 'supported values: "All"', values)
        raise invalid("meta.k8s.io", "CreateOptions", "", [error])
    return bool(values)


def _warning(text: str) -> str:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ").replace("\r", " ")
    return f'299 - "{quoted}"'


async def _get(api: Api, request: Request, kind: Kind) -> Answer:
    return await reads.get(api.ports, request, kind)


async def _list(api: Api, request: Request, kind: Kind) -> Answer:
    return await reads.list_objects(api.ports, request, kind)


async def _watch(api: Api, request: Request, kind: Kind) -> Answer:
    return await watch(api.ports, request, kind)


async def _create(api: Api, request: Request, kind: Kind) -> Answer:
    accepted = negotiate(request.headers.get("Accept", ""))
    options = api.write_options(request)
    obj, duplicates = bodies.decode_object(await request.read(), request.headers.get("Content-Type", ""))
    request.warnings += api.writer.decode(kind, obj, duplicates, options.strict)
    made = await api.writer.create(kind, request.target.namespace if kind.namespaced else "", obj, options)
    return reads.represent(api.ports, request, kind, made, accepted, 201)


async def _update(api: Api, request: Request, kind: Kind) -> Answer:
    accepted, target = negotiate(request.headers.get("Accept", "")), request.target
    options = api.write_options(request)
    raw, content = await request.read(), request.headers.get("Content-Type", "")
    obj, duplicates = bodies.decode_object(raw, content)
    request.warnings += api.writer.decode(kind, obj, duplicates, options.strict)
    given = obj["metadata"]
    if given.get("name") and given["name"] != target.name:
        raise bad_request(
            f"the name of the object ({given['name']}) does not match the name on the URL ({target.name})"
        )
    if kind.namespaced and given.get("namespace") and given["namespace"] != target.namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if not kind.unconditional_update and not given.get("resourceVersion"):
        error = FieldError("FieldValueInvalid", "metadata.resourceVersion", "must be specified for an update", 0)
        raise invalid(kind.group, kind.kind, target.name, [error])
    text = orjson.dumps(obj)
    made = await api.writer.update(
        kind,
        target.namespace if kind.namespaced else "",
        target.name,
        lambda _: orjson.loads(text),
        options,
        target.subresource,
    )
    return reads.represent(api.ports, request, kind, made, accepted)


async def _patch(api: Api, request: Request, kind: Kind) -> Answer:
    accepted = negotiate(request.headers.get("Accept", ""))
    made, created = await api.patcher.patch(api, request, kind)
    return reads.represent(api.ports, request, kind, made, accepted, 201 if created else 200)


async def _delete(api: Api, request: Request, kind: Kind) -> Answer:
    options = await options_of(request)
    namespace = request.target.namespace if kind.namespaced else ""
    answer, gone = await api.deleter.delete(kind, namespace, request.target.name, options, request.user)
    return Reply(200, answer) if gone else reads.represent(api.ports, request, kind, answer)


async def _delete_collection(api: Api, request: Request, kind: Kind) -> Answer:
    options, selection = await options_of(request), selection_of(request, kind)
    list_options(request)
    await api.ports.fresh()
    namespace = request.target.namespace if kind.namespaced else None
    entries = [entry for entry in api.ports.cache.list(kind.store_key, namespace) if selection.matches(entry)]
    await api.deleter.delete_all(kind, entries, options, request.user)
    metadata = {"resourceVersion": str(api.ports.cache.revision)}
    return Reply(200, reads.join_list(kind, entries, metadata))


_VERBS: Mapping[str, Callable[[Api, Request, Kind], Awaitable[Answer]]] = {
    "get": _get,
    "list": _list,
    "watch": _watch,
    "create": _create,
    "update": _update,
    "patch": _patch,
    "delete": _delete,
    "deletecollection": _delete_collection,
}

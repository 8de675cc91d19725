"""``pods/binding``: a POST that acts on a pod. Evictions are in ``eviction.py``."""

from collections.abc import Awaitable
from typing import Any, Final, Protocol

import orjson

from common.errors import Retryable
from controller.api import body as bodies
from controller.api.api import Call, Routes, dry_run
from controller.api.request import Answer, Reply
from controller.api.status import ApiError, bad_request, method_not_allowed
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
BINDINGS: Final = ResourceKey("", "bindings")
DONE: Final[Object] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Binder(Protocol):
    """``scheduler.binding.Binder``."""

    def bind(self, namespace: str, name: str, host: str, *, uid: str | None = None) -> Awaitable[int]: ...


def install(routes: Routes, binder: Binder) -> None:
    """Serve ``pods/binding`` and the older ``bindings`` resource."""
    actions = _Actions(binder)
    routes.subresources[PODS, "binding"] = actions.binding
    routes.resources[BINDINGS] = actions.binding


async def read_action(call: Call, definition: str, kind: str) -> Object:
    """The body of a POST, checked against ``definition``. Raises ``ApiError``."""
    request = call.request
    if request.method != "POST":
        raise method_not_allowed()
    obj, _ = bodies.decode_object(await request.read(), request.headers.get("Content-Type", ""))
    unknown, errors = call.api.ports.schemas.check(definition, obj)
    if errors:
        raise bodies.decoding_error(kind, "v1", errors)
    request.warnings += bodies.judge_fields(unknown, [], bodies.strictness(request.text("fieldValidation")))
    return obj


class _Actions:
    def __init__(self, binder: Binder) -> None:
        self._binder = binder

    async def binding(self, call: Call) -> Answer:
        obj = await read_action(call, "io.k8s.api.core.v1.Binding", "Binding")
        meta: dict[str, Any] = obj.get("metadata") or {}
        name = call.request.target.name or meta.get("name") or ""
        target = obj.get("target") or {}
        if not target.get("name") or target.get("kind", "Node") not in ("Node", ""):
            raise bad_request("target: a binding needs target.kind Node and target.name")
        if dry_run(call.request):
            return Reply(201, orjson.dumps(DONE))
        try:
            await self._binder.bind(call.request.target.namespace, name, target["name"], uid=meta.get("uid"))
        except Retryable as err:
            raise ApiError(503, "ServiceUnavailable", str(err), headers={"Retry-After": "1"}) from err
        return Reply(201, orjson.dumps(DONE))

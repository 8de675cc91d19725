"""``pods/binding`` and ``pods/eviction``: a POST that acts on a pod."""

from collections.abc import Awaitable
from typing import Any, Final, Protocol

import orjson

from common.errors import Retryable
from controller.api import body as bodies
from controller.api.api import Call, Routes, dry_run
from controller.api.deletion import DeleteOptions
from controller.api.request import Answer, Reply
from controller.api.status import ApiError, bad_request, method_not_allowed, not_found
from controller.kinds import rules
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
BINDINGS: Final = ResourceKey("", "bindings")
BUDGETS: Final = ResourceKey("policy", "poddisruptionbudgets")
_DONE: Final[Object] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Binder(Protocol):
    """``scheduler.binding.Binder``."""

    def bind(self, namespace: str, name: str, host: str, *, uid: str | None = None) -> Awaitable[int]: ...


def install(routes: Routes, binder: Binder) -> None:
    """Serve the two subresources, and the older ``bindings`` resource."""
    actions = _Actions(binder)
    routes.subresources[PODS, "binding"] = actions.binding
    routes.resources[BINDINGS] = actions.binding
    routes.subresources[PODS, "eviction"] = eviction


async def _read(call: Call, definition: str, kind: str) -> Object:
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
        obj = await _read(call, "io.k8s.api.core.v1.Binding", "Binding")
        meta: dict[str, Any] = obj.get("metadata") or {}
        name = call.request.target.name or meta.get("name") or ""
        target = obj.get("target") or {}
        if not target.get("name") or target.get("kind", "Node") not in ("Node", ""):
            raise bad_request("target: a binding needs target.kind Node and target.name")
        if dry_run(call.request):
            return Reply(201, orjson.dumps(_DONE))
        try:
            await self._binder.bind(call.request.target.namespace, name, target["name"], uid=meta.get("uid"))
        except Retryable as err:
            raise ApiError(503, "ServiceUnavailable", str(err), headers={"Retry-After": "1"}) from err
        return Reply(201, orjson.dumps(_DONE))


async def eviction(call: Call) -> Answer:
    """Delete a pod unless a disruption budget forbids it (then 429, which clients retry)."""
    obj = await _read(call, "io.k8s.api.policy.v1.Eviction", "Eviction")
    api, target = call.api, call.request.target
    await api.ports.fresh()
    entry = api.ports.cache.get(PODS, target.namespace, target.name)
    if entry is None:
        raise not_found(PODS, target.name)
    pod = entry.decode()
    # Pods that have ended or never started disrupt nobody.
    if (pod.get("status") or {}).get("phase") in ("Running", "Unknown"):
        _check_budgets(call, pod)
    given: dict[str, Any] = obj.get("deleteOptions") or {}
    given.setdefault("kind", "DeleteOptions")
    kind = api.ports.kinds.by_key(PODS)
    options = DeleteOptions(
        grace_s=given.get("gracePeriodSeconds"),
        dry_run=dry_run(call.request) or given.get("dryRun") == ["All"],
        uid=(given.get("preconditions") or {}).get("uid"),
    )
    await api.deleter.delete(kind, target.namespace, target.name, options, call.request.user)
    return Reply(201, orjson.dumps(_DONE))


def _check_budgets(call: Call, pod: Object) -> None:
    labels = pod["metadata"].get("labels") or {}
    namespace = pod["metadata"]["namespace"]
    for entry in call.api.ports.cache.list(BUDGETS, namespace):
        budget = entry.decode()
        selector = (budget.get("spec") or {}).get("selector")
        if selector is None or not rules.selects(selector, labels):
            continue
        if int((budget.get("status") or {}).get("disruptionsAllowed") or 0) <= 0:
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            cause = {"reason": "DisruptionBudget", "message": f"The disruption budget {entry.name} needs its pods"}
            raise ApiError(429, "TooManyRequests", message, {"causes": [cause]}, {"Retry-After": "10"})

"""``pods/eviction``: delete a pod unless a disruption budget forbids it (then 429, which clients retry).

Law: a budget is spent by compare-and-swap before the pod is deleted, so that two evictions never share one allowance.
The disruption controller earns it back from what it sees.

Spec: ``registry/core/pod/storage/eviction.go``.
"""

from typing import Any, Final

import orjson

from common.clock import rfc3339
from controller.api.api import Api, Call, Routes, dry_run
from controller.api.deletion import DeleteOptions, checked_options
from controller.api.pod_actions import DONE, PODS, read_action
from controller.api.request import Answer, Reply
from controller.api.status import ApiError, bad_request, conflict, forbidden, not_found
from controller.api.writes import WriteOptions
from controller.kinds import rules
from controller.kinds.kind import Object, ResourceKey

BUDGETS: Final = ResourceKey("policy", "poddisruptionbudgets")
DISRUPTED_PODS_MAX: Final = 2000
RETRY_S: Final = 10
TARGET: Final = "DisruptionTarget"
_MANAGER: Final = "eviction"


def install(routes: Routes) -> None:
    """Serve it."""
    routes.subresources[PODS, "eviction"] = eviction


async def eviction(call: Call) -> Answer:
    """POST .../eviction."""
    obj = await read_action(call, "io.k8s.api.policy.v1.Eviction", "Eviction")
    api, target = call.api, call.request.target
    given = (obj.get("metadata") or {}).get("name")
    if given and given != target.name:
        raise bad_request(f"name in URL does not match name in Eviction object: {target.name} != {given}")
    options = _options(call, obj.get("deleteOptions") or {})
    await api.ports.fresh()
    entry = api.ports.cache.get(PODS, target.namespace, target.name)
    if entry is None:
        raise not_found(PODS, target.name)
    if options.uid is not None and options.uid != entry.uid:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {entry.uid}"
        raise conflict(PODS, target.name, why)
    pod = entry.decode()
    if not is_free(pod):
        await _spend(api, pod, call, dry=options.dry_run)
    await _mark(api, entry.uid, call, options)
    # From here on it means this pod, not one of the same name that comes after it. Its version was checked.
    options = DeleteOptions(options.grace_s, entry.uid, None, options.policy, options.dry_run)
    await api.deleter.delete(api.ports.kinds.by_key(PODS), target.namespace, target.name, options, call.request.user)
    return Reply(201, orjson.dumps(DONE))


def _options(call: Call, given: Object) -> DeleteOptions:
    options = checked_options(given)
    if not dry_run(call.request) or options.dry_run:
        return options
    return DeleteOptions(options.grace_s, options.uid, options.resource_version, options.policy, True)


def is_free(pod: Object) -> bool:
    """Whether losing the pod disrupts nobody: it has ended, never started, or is on its way out. Pure."""
    phase = (pod.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod["metadata"]


def budgets_of(pod: Object, budgets: list[Object]) -> list[Object]:
    """Those of ``budgets``, all of the pod's namespace, that cover it. Pure."""
    labels = pod["metadata"].get("labels") or {}
    found = []
    for budget in budgets:
        selector = (budget.get("spec") or {}).get("selector")
        if selector is not None and rules.selects(selector, labels):
            found.append(budget)
    return found


def needs_allowance(pod: Object, budget: Object) -> bool:
    """Whether evicting the pod takes from the budget: one that is not ready may be none of its healthy ones. Pure."""
    conditions: list[dict[str, Any]] = (pod.get("status") or {}).get("conditions") or []
    if any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions):
        return True
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return False
    status = budget.get("status") or {}
    healthy, wanted = int(status.get("currentHealthy") or 0), int(status.get("desiredHealthy") or 0)
    return not (healthy >= wanted > 0)


def spent(budget: Object, pod: str, now: float) -> Object:
    """The budget's status after one more eviction. Raises ``ApiError`` 429 when nothing is left. Pure."""
    status: Object = dict(budget.get("status") or {})
    name = budget["metadata"]["name"]
    if int(status.get("observedGeneration") or 0) < int(budget["metadata"].get("generation") or 0):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.")
    allowed, disrupted = int(status.get("disruptionsAllowed") or 0), dict(status.get("disruptedPods") or {})
    if len(disrupted) > DISRUPTED_PODS_MAX:
        raise forbidden(BUDGETS, name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller")
    if allowed <= 0:
        wanted, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        raise _too_many(f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
    disrupted[pod] = rfc3339(now)
    return {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}


def marked(pod: Object, now: float) -> Object:
    """The pod's status, saying that it is evicted: for owners that do not count such an end as a failure. Pure."""
    status: Object = dict(pod.get("status") or {})
    listed = [dict(each) for each in status.get("conditions") or ()]
    old = next((each for each in listed if each.get("type") == TARGET), None)
    same = old is not None and old.get("status") == "True"
    fresh = {
        "type": TARGET,
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else rfc3339(now),
    }
    status["conditions"] = [*(each for each in listed if each is not old), fresh]
    return status


async def _mark(api: Api, uid: str, call: Call, options: DeleteOptions) -> None:
    """Write that before the pod is told to end. Raises ``ApiError``."""

    def change(pod: Object) -> Object:
        pod["status"] = marked(pod, api.ports.clock.now())
        pod["metadata"].pop("resourceVersion", None)
        if options.resource_version is not None:
            pod["metadata"]["resourceVersion"] = options.resource_version
        return pod

    writing = WriteOptions(call.request.user, _MANAGER, dry_run=options.dry_run)
    target, kind = call.request.target, api.ports.kinds.by_key(PODS)
    await api.writer.update(kind, target.namespace, target.name, change, writing, "status", uid)


def _too_many(why: str) -> ApiError:
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    details = {"causes": [{"reason": "DisruptionBudget", "message": why}], "retryAfterSeconds": RETRY_S}
    return ApiError(429, "TooManyRequests", message, details, {"Retry-After": str(RETRY_S)})


async def _spend(api: Api, pod: Object, call: Call, *, dry: bool) -> None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    covering = budgets_of(pod, [entry.decode() for entry in api.ports.cache.list(BUDGETS, namespace)])
    if len(covering) > 1:
        text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "InternalError", text)
    if not covering or not needs_allowance(pod, covering[0]):
        return

    def change(budget: Object) -> Object:
        budget["status"] = spent(budget, name, api.ports.clock.now())
        return budget

    options = WriteOptions(call.request.user, _MANAGER, dry_run=dry)
    kind = api.ports.kinds.by_key(BUDGETS)
    await api.writer.update(kind, namespace, covering[0]["metadata"]["name"], change, options, "status")

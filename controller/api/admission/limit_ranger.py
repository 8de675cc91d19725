"""LimitRanger: containers get the defaults of their namespace's LimitRanges; pods and claims stay within them. Pure.

Spec: kube ``plugin/pkg/admission/limitranger``.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from common.quantity import Quantity
from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import forbidden
from controller.kinds.columns import dig
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.usage import CLAIMS, PODS, amounts, pod_total

LIMIT_RANGES: Final = ResourceKey("", "limitranges")
ANNOTATION: Final = "kubernetes.io/limit-ranger"
Listing = Callable[[ResourceKey, str], Iterable[Object]]
"""Objects of a resource in a namespace."""
Amounts = Mapping[str, Quantity]


class LimitRanger:
    """An admission step. ``listing`` reads LimitRanges from memory."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def admit(self, request: AdmissionRequest, lookup: Lookup) -> None:
        """Raises ``ApiError`` 403 that names every limit that does not hold."""
        del lookup
        key, metadata = request.kind.key, request.obj["metadata"]
        creates = request.operation == "CREATE" and not request.subresource
        resizes = request.operation == "UPDATE" and request.subresource == "resize"
        grows = request.operation == "UPDATE" and key == CLAIMS and not request.subresource
        if key not in (PODS, CLAIMS) or not (creates or resizes or grows):
            return
        items = [
            item
            for found in self._listing(LIMIT_RANGES, metadata.get("namespace", ""))
            for item in dig(found, "spec.limits", [])
        ]
        if not items:
            return
        if key == PODS and creates:
            _complete(request.obj, items)
        problems = pod_problems(request.obj, items) if key == PODS else claim_problems(request.obj, items)
        if problems:
            listed = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
            raise forbidden(key, metadata.get("name", ""), listed)


def _complete(pod: Object, items: Sequence[Object]) -> None:
    spec = pod.get("spec") or {}
    said: list[str] = []
    for part, what in (("containers", "container"), ("initContainers", "init container")):
        for container in spec.get(part) or ():
            for sort, field, word in (("limits", "default", "limit"), ("requests", "defaultRequest", "request")):
                added = _fill(container, sort, field, items)
                if added:
                    said.append(f"{', '.join(sorted(added))} {word} for {what} {container.get('name')}")
    if said:
        text = "LimitRanger plugin set: " + "; ".join(said)
        pod["metadata"].setdefault("annotations", {})[ANNOTATION] = text


def _fill(container: Object, sort: str, field: str, items: Sequence[Object]) -> list[str]:
    added: list[str] = []
    for item in items:
        if item.get("type") != "Container":
            continue
        for name, value in (item.get(field) or {}).items():
            have = container.setdefault("resources", {}).setdefault(sort, {})
            if name not in have:
                have[name] = value
                added.append(name)
    return added


def pod_problems(pod: Object, items: Sequence[Object]) -> list[str]:
    """Every limit of a pod or its containers that does not hold."""
    spec = pod.get("spec") or {}
    found: list[str] = []
    for item in items:
        match item.get("type"):
            case "Container":
                for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
                    found += _judge(item, amounts(container, "requests"), amounts(container, "limits"))
            case "Pod":
                found += _judge(item, pod_total(spec, "requests"), pod_total(spec, "limits"))
    return found


def claim_problems(claim: Object, items: Sequence[Object]) -> list[str]:
    """Every limit of a volume claim that does not hold."""
    asked = {name: Quantity.parse(value) for name, value in dig(claim, "spec.resources.requests", {}).items()}
    found: list[str] = []
    for item in items:
        if item.get("type") == "PersistentVolumeClaim":
            found += _judge(item, asked, asked, claim=True)
    return found


def _judge(item: Object, requests: Amounts, limits: Amounts, *, claim: bool = False) -> list[str]:
    kind, found = item["type"], []
    for name, least in _each(item, "min"):
        lead = f"minimum {name} usage per {kind} is {least}"
        if name not in requests:
            found.append(f"{lead}.  No request is specified")
        elif requests[name] < least:
            found.append(f"{lead}, but request is {requests[name]}")
        if not claim and name in limits and limits[name] < least:
            found.append(f"{lead}, but limit is {limits[name]}")
    for name, most in _each(item, "max"):
        lead = f"maximum {name} usage per {kind} is {most}"
        if claim:
            found += [f"{lead}, but request is {requests[name]}"] if requests.get(name, most) > most else []
        elif name not in limits:
            found.append(f"{lead}.  No limit is specified")
        elif limits[name] > most:
            found.append(f"{lead}, but limit is {limits[name]}")
        elif name in requests and requests[name] > most:
            found.append(f"{lead}, but request is {requests[name]}")
    for name, ratio in _each(item, "maxLimitRequestRatio"):
        found += _ratio(name, kind, ratio, requests.get(name), limits.get(name))
    return found


def _ratio(name: str, kind: str, most: Quantity, request: Quantity | None, limit: Quantity | None) -> list[str]:
    lead = f"{name} max limit to request ratio per {kind} is {most}, but"
    if not request or not limit:
        missing = "no request is specified or request is 0" if not request else "no limit is specified or limit is 0"
        return [f"{lead} {missing}"]
    have = limit.nanos / request.nanos
    return [f"{lead} provided ratio is {have:.6f}"] if have * 10**9 > most.nanos else []


def _each(item: Mapping[str, Any], field: str) -> list[tuple[str, Quantity]]:
    return [(name, Quantity.parse(value)) for name, value in sorted((item.get(field) or {}).items())]

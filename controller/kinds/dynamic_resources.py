"""Devices, and claims on them (``resource.k8s.io``) as objects: defaults, validation, columns. Nothing allocates yet.

Spec: kube ``pkg/apis/resource``, ``v1/defaults.go`` and ``validation``.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from controller.kinds import expressions, rules
from controller.kinds.columns import AGE, at, computed, dig
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, invalid, required

GROUP: Final = "resource.k8s.io"
_NODES: Final = ("allNodes", "nodeName", "nodeSelector", "perDeviceNodeSelection")


def _requests(devices: Object) -> Iterator[Object]:
    """What is asked for, in every alternative."""
    for request in devices.get("requests") or []:
        if isinstance(request.get("exactly"), dict):
            yield request["exactly"]
        yield from request.get("firstAvailable") or []


def _default(path: str) -> Callable[[Object], None]:
    def default(obj: Object) -> None:
        for request in _requests(dig(obj, path, {})):
            request["allocationMode"] = request.get("allocationMode") or "ExactCount"
            if request["allocationMode"] == "ExactCount":
                request.setdefault("count", 1)

    return default


def _validate(path: str) -> Callable[[Object], Errors]:
    def validate(obj: Object) -> Errors:
        errors: Errors = []
        seen: set[str] = set()
        for index, request in enumerate(dig(obj, f"{path}.requests", [])):
            here, name = f"{path}.requests[{index}]", str(request.get("name") or "")
            errors += rules.name(f"{here}.name", name, rules.label_problems)
            if name in seen:
                errors.append(rules.duplicate(f"{here}.name", name))
            seen.add(name)
            if (request.get("exactly") is None) == (not request.get("firstAvailable")):
                errors.append(required(here, "exactly one of `exactly` or `firstAvailable` is required"))
        for request in _requests(dig(obj, path, {})):
            if not request.get("deviceClassName"):
                errors.append(required(f"{path}.requests.deviceClassName"))
            errors += rules.one_of(f"{path}.requests.allocationMode", request["allocationMode"], ("All", "ExactCount"))
            errors += _selectors(request.get("selectors") or [], f"{path}.requests.selectors")
        return errors

    return validate


def _selectors(selectors: list[Object], path: str) -> Errors:
    errors: Errors = []
    for index, selector in enumerate(selectors):
        here, text = f"{path}[{index}].cel", dig(selector, "cel.expression")
        errors += expressions.check(f"{here}.expression", str(text)) if text else [required(here)]
    return errors


def _validate_class(found: Object) -> Errors:
    return _selectors(dig(found, "spec.selectors", []), "spec.selectors")


def _immutable(obj: Object, old: Object) -> Errors:
    return rules.immutable("spec", obj.get("spec"), old.get("spec"))


def _validate_slice(obj: Object) -> Errors:
    spec = obj.get("spec") or {}
    errors = rules.name("spec.driver", spec.get("driver"), rules.subdomain_problems)
    pool = spec.get("pool") or {}
    if not pool.get("name"):
        errors.append(required("spec.pool.name"))
    if pool.get("resourceSliceCount", 0) < 1:
        errors.append(
            invalid("spec.pool.resourceSliceCount", pool.get("resourceSliceCount", 0), "must be greater than zero")
        )
    given = [key for key in _NODES if spec.get(key)]
    if len(given) != 1:
        errors.append(invalid("spec", given, f"exactly one of {', '.join(f'`{key}`' for key in _NODES)} is required"))
    seen: set[str] = set()
    for index, device in enumerate(spec.get("devices") or []):
        name = str(device.get("name") or "")
        errors += rules.name(f"spec.devices[{index}].name", name, rules.label_problems)
        if name in seen:
            errors.append(rules.duplicate(f"spec.devices[{index}].name", name))
        seen.add(name)
    return errors


def _validate_slice_update(obj: Object, old: Object) -> Errors:
    errors: Errors = []
    for key in ("driver", "nodeName", "pool.name"):
        errors += rules.immutable(f"spec.{key}", dig(obj, f"spec.{key}"), dig(old, f"spec.{key}"))
    return errors


def _state(claim: Object) -> str:
    states = ["deleted"] if dig(claim, "metadata.deletionTimestamp") else []
    if dig(claim, "status.allocation") is None:
        return ",".join([*states, "pending"])
    states.append("allocated")
    return ",".join([*states, "reserved"] if dig(claim, "status.reservedFor") else states)


def _kind(kind: str, plural: str, columns: tuple[Column, ...], **rest: Any) -> Kind:
    return Kind(
        group=GROUP,
        version="v1",
        kind=kind,
        plural=plural,
        schema=f"io.k8s.api.resource.v1.{kind}",
        singular=kind.lower(),
        columns=columns,
        **rest,
    )


KINDS: Final = (
    _kind("DeviceClass", "deviceclasses", (AGE,), namespaced=False, validate=_validate_class),
    _kind(
        "ResourceClaim",
        "resourceclaims",
        (computed("State", _state), AGE),
        subresources=("status",),
        generation_fields=(),
        default=_default("spec.devices"),
        validate=_validate("spec.devices"),
        validate_update=_immutable,
    ),
    _kind(
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        (AGE,),
        generation_fields=(),
        default=_default("spec.spec.devices"),
        validate=_validate("spec.spec.devices"),
        validate_update=_immutable,
    ),
    _kind(
        "ResourceSlice",
        "resourceslices",
        (at("Node", "spec.nodeName"), at("Driver", "spec.driver"), at("Pool", "spec.pool.name"), AGE),
        namespaced=False,
        selectable_fields={
            "spec.driver": lambda obj: str(dig(obj, "spec.driver", "")),
            "spec.nodeName": lambda obj: str(dig(obj, "spec.nodeName", "")),
        },
        validate=_validate_slice,
        validate_update=_validate_slice_update,
    ),
)

"""What may change through ``pods/ephemeralcontainers`` and ``pods/resize``, and through nothing else. Pure.

Spec: ``registry/core/pod/strategy.go``, ``core/validation`` ``ValidatePodEphemeralContainersUpdate``,
``ValidatePodResize``.
"""

from collections.abc import Callable
from typing import Any, Final

from controller.kinds.kind import Object, Subwrite
from controller.kinds.rules import Errors, forbidden, invalid

_NOT_EPHEMERAL: Final = ("ports", "resources", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
_RESIZABLE: Final = frozenset(("cpu", "memory"))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(child) for key, child in value.items()}
    return [_copy(child) for child in value] if isinstance(value, list) else value


def _spec(obj: Object) -> Object:
    found: Object = obj.get("spec") or {}
    return found


def _confine_ephemeral(pod: Object, old: Object) -> None:
    wanted = _spec(pod).get("ephemeralContainers")
    spec = pod["spec"] = _copy(_spec(old))
    spec.pop("ephemeralContainers", None)
    if wanted:
        spec["ephemeralContainers"] = wanted


def _validate_ephemeral(pod: Object, old: Object) -> Errors:
    path = "spec.ephemeralContainers"
    new_list: list[Object] = _spec(pod).get("ephemeralContainers") or []
    by_name = {each.get("name"): each for each in new_list}
    errors: Errors = []
    had = _spec(old).get("ephemeralContainers") or []
    for each in had:
        name = each.get("name")
        if name not in by_name:
            errors.append(forbidden(path, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif by_name[name] != each:
            errors.append(forbidden(path, f'existing ephemeral containers "{name}" may not be changed\n'))
    others = {each.get("name") for key in ("containers", "initContainers") for each in _spec(pod).get(key) or []}
    for index, each in enumerate(new_list):
        here = f"{path}[{index}]"
        errors += [
            forbidden(f"{here}.{key}", "cannot be set for an Ephemeral Container")
            for key in _NOT_EPHEMERAL
            if each.get(key)
        ]
        target = each.get("targetContainerName")
        if target and target not in others:
            found = ", ".join(f'"{name}"' for name in sorted(str(name) for name in others))
            errors.append(invalid(f"{here}.targetContainerName", target, f"must be one of the containers {found}"))
    return errors


def _confine_resize(pod: Object, old: Object) -> None:
    wanted = _spec(pod)
    spec = pod["spec"] = _copy(_spec(old))
    for key in ("containers", "initContainers"):
        asked = wanted.get(key) or []
        if len(asked) != len(spec.get(key) or []):
            spec[key] = asked  # refused below
            continue
        for container, mine in zip(spec.get(key) or [], asked, strict=True):
            for field in ("name", "resources", "resizePolicy"):
                if field in mine:
                    container[field] = mine[field]
                else:
                    container.pop(field, None)


def _validate_resize(qos_class: Callable[[Object], str]) -> Callable[[Object, Object], Errors]:
    def validate(pod: Object, old: Object) -> Errors:
        errors: Errors = []
        for key in ("containers", "initContainers"):
            new_list, old_list = _spec(pod).get(key) or [], _spec(old).get(key) or []
            if len(new_list) != len(old_list):
                errors.append(forbidden(f"spec.{key}", "containers may not be added or removed on resize"))
                continue
            for index, (new, before) in enumerate(zip(new_list, old_list, strict=True)):
                errors += _validate_resized(new, before, f"spec.{key}[{index}]")
        if qos_class(_spec(pod)) != qos_class(_spec(old)):
            detail = "Pod QOS Class may not change as a result of resizing"
            errors.append(invalid("spec", qos_class(_spec(pod)), detail))
        return errors

    return validate


def _validate_resized(new: Object, before: Object, path: str) -> Errors:
    if new.get("name") != before.get("name"):
        return [forbidden(f"{path}.name", "containers may not be renamed or reordered on resize")]
    errors: Errors = []
    for sort in ("requests", "limits"):
        has = (new.get("resources") or {}).get(sort) or {}
        had = (before.get("resources") or {}).get(sort) or {}
        here = f"{path}.resources.{sort}"
        wrong = sorted(name for name in {*has, *had} - _RESIZABLE if has.get(name) != had.get(name))
        errors += [forbidden(here, f"only cpu and memory resources are mutable, not {name}") for name in wrong]
        if any(name in had and name not in has for name in sorted(_RESIZABLE)):
            errors.append(forbidden(here, f"resource {sort} cannot be removed"))
    return errors


def subwrites(qos_class: Callable[[Object], str]) -> dict[str, Subwrite]:
    """By subresource. ``qos_class`` tells the class of a pod spec."""
    return {
        "ephemeralcontainers": Subwrite(_confine_ephemeral, _validate_ephemeral),
        "resize": Subwrite(_confine_resize, _validate_resize(qos_class)),
    }

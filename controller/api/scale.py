"""The scale subresource: ``autoscaling/v1`` Scale of whatever has replicas."""

from typing import TYPE_CHECKING

import orjson

from common.selectors import InvalidSelector, from_label_selector
from controller.api import body as bodies
from controller.api.negotiate import negotiate
from controller.api.patch import apply_patch
from controller.api.ports import Ports
from controller.api.reads import encoded
from controller.api.request import Reply, Request
from controller.api.status import bad_request, conflict, invalid, method_not_allowed, not_found
from controller.kinds.jsonpath import compile_path
from controller.kinds.kind import FieldError, Kind, Object

if TYPE_CHECKING:
    from controller.api.api import Api

SCALE_SCHEMA = "io.k8s.api.autoscaling.v1.Scale"


def scale_of(kind: Kind, obj: Object) -> Object:
    """Scale of an object. Pure."""
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    if kind.scale_paths is None:
        wanted, have = obj.get("spec", {}).get("replicas"), obj.get("status", {}).get("replicas")
        selector = _selector_text(obj)
    else:
        wanted, have = _number_at(kind.scale_paths.replicas, obj), _number_at(kind.scale_paths.observed, obj)
        found = compile_path(kind.scale_paths.selector)(obj) if kind.scale_paths.selector else []
        selector = str(found[0]) if found else ""
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": wanted} if wanted else {},
        "status": {"replicas": have or 0, **({"selector": selector} if selector else {})},
    }


def _selector_text(obj: Object) -> str:
    selector = obj.get("spec", {}).get("selector") or {}
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        selector = {"matchLabels": selector}
    try:
        return str(from_label_selector(selector))
    except InvalidSelector:
        return ""


def _number_at(path: str, obj: Object) -> int | None:
    found = compile_path(path)(obj)
    return int(found[0]) if found and isinstance(found[0], int | float) else None


def _set_replicas(kind: Kind, obj: Object, replicas: int) -> None:
    """Paths of custom resources are plain: fields below ``spec``."""
    path = kind.scale_paths.replicas if kind.scale_paths is not None else ".spec.replicas"
    *parents, last = path.strip(".").split(".")
    for name in parents:
        obj = obj.setdefault(name, {})
    obj[last] = replicas


async def get_scale(ports: Ports, request: Request, kind: Kind) -> Reply:
    """GET .../scale."""
    await ports.fresh()
    entry = ports.cache.get(kind.store_key, request.target.namespace, request.target.name)
    if entry is None:
        raise not_found(kind.key, request.target.name)
    return encoded(orjson.dumps(scale_of(kind, entry.decode())), negotiate(request.headers.get("Accept", "")))


async def update_scale(api: "Api", request: Request, kind: Kind) -> Reply:
    """PUT or PATCH .../scale: only ``spec.replicas`` counts, resourceVersion is a precondition."""
    if request.verb not in ("update", "patch"):
        raise method_not_allowed()
    options, target = api.write_options(request), request.target
    raw, media = await request.read(), bodies.media_type(request.headers.get("Content-Type", ""))

    def change(obj: Object) -> Object:
        before = scale_of(kind, obj)
        if request.verb == "patch":
            after = apply_patch(before, raw, media, api.ports.schemas.get(SCALE_SCHEMA))
        else:
            after, _ = bodies.decode_object(raw, media)
        _, errors = api.ports.schemas.check(SCALE_SCHEMA, after)
        if errors:
            raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {errors[0]}')
        given = (after.get("metadata") or {}).get("resourceVersion")
        if given and given != obj["metadata"]["resourceVersion"]:
            raise conflict(kind.key, target.name)
        replicas = (after.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            error = FieldError("FieldValueInvalid", "spec.replicas", "must be greater than or equal to 0", replicas)
            raise invalid("autoscaling", "Scale", target.name, [error])
        if not given:
            obj["metadata"].pop("resourceVersion")
        _set_replicas(kind, obj, replicas)
        return obj

    made = await api.writer.update(kind, target.namespace, target.name, change, options, "scale")
    return encoded(orjson.dumps(scale_of(kind, orjson.loads(made))), negotiate(request.headers.get("Accept", "")))

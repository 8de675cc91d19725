"""NodeRestriction: what a node may write about itself and its pods, beyond what the authorizer can see. Pure."""

from typing import Final

from controller.api.admission import AdmissionRequest, Lookup
from controller.api.node_authorizer import node_name
from controller.api.status import forbidden
from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
NODES: Final = ResourceKey("", "nodes")
_RESTRICTED: Final = "node-restriction.kubernetes.io/"


def admit(request: AdmissionRequest, lookup: Lookup) -> None:
    """Refuse a node's writes to other nodes and to pods that are not on it. Raises ``ApiError`` 403."""
    del lookup
    node = node_name(request.user)
    if node is None:
        return
    name = request.obj["metadata"].get("name", "")
    if request.kind.key == NODES:
        if name != node:
            raise forbidden(NODES, name, f'node "{node}" is not allowed to modify node "{name}"')
        old = (request.old or {}).get("metadata", {}).get("labels") or {}
        new = request.obj["metadata"].get("labels") or {}
        changed = [key for key in {*old, *new} if key.startswith(_RESTRICTED) and old.get(key) != new.get(key)]
        if changed:
            raise forbidden(NODES, name, f"is not allowed to modify labels: {', '.join(sorted(changed))}")
        old_taints = ((request.old or {}).get("spec") or {}).get("taints") or []
        if request.operation == "UPDATE" and ((request.obj.get("spec") or {}).get("taints") or []) != old_taints:
            raise forbidden(NODES, name, f'node "{node}" is not allowed to modify taints')
    elif request.kind.key == claims.VOLUMES:
        if request.old is None or _without_ours(request.obj) != _without_ours(request.old):
            text = f'node "{node}" is only allowed to remove the finalizer {claims.PROVISIONER}'
            raise forbidden(claims.VOLUMES, name, text)
    elif request.kind.key == PODS:
        owner = ((request.old or request.obj).get("spec") or {}).get("nodeName", "")
        if owner != node:
            raise forbidden(PODS, name, f"node {node!r} can only touch pods with spec.nodeName set to itself")


def _without_ours(volume: Object) -> Object:
    """All but what the host of a volume may change."""
    meta = {key: value for key, value in volume["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    meta["finalizers"] = [each for each in meta.get("finalizers") or () if each != claims.PROVISIONER]
    return {**volume, "metadata": meta}

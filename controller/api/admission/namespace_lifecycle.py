"""NamespaceLifecycle: nothing is created in a namespace that is missing or going away. Pure."""

from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import ApiError, forbidden, not_found
from controller.kinds.kind import ResourceKey

NAMESPACES = ResourceKey("", "namespaces")
IMMORTAL = frozenset({"default", "kube-system", "kube-public"})


def admit(request: AdmissionRequest, lookup: Lookup) -> None:
    """Judge creations in namespaces, and deletions of namespaces."""
    metadata = request.obj["metadata"]
    if request.operation == "DELETE":
        if request.kind.key == NAMESPACES and metadata["name"] in IMMORTAL:
            raise forbidden(NAMESPACES, metadata["name"], "this namespace may not be deleted")
        return
    if request.operation != "CREATE" or not request.kind.namespaced:
        return
    name = metadata.get("namespace", "")
    namespace = lookup(NAMESPACES, "", name)
    if namespace is None:
        raise not_found(NAMESPACES, name)
    if namespace.deleting:
        raise _terminating(request, name)


def _terminating(request: AdmissionRequest, namespace: str) -> ApiError:
    name = request.obj["metadata"].get("name", "")
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    err = forbidden(request.kind.key, name, why)
    err.details["causes"] = [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    return err

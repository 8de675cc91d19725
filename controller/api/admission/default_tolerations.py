"""DefaultTolerationSeconds: pods stay five minutes on a host that is not ready or unreachable. Pure."""

from controller.api.admission import AdmissionRequest, Lookup
from controller.kinds.kind import Object, ResourceKey

PODS = ResourceKey("", "pods")
SECONDS = 300
KEYS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def admit(request: AdmissionRequest, lookup: Lookup) -> None:
    """Add the tolerations that a pod has no opinion on: a new one, and one whose tolerations are written anew."""
    if request.operation not in ("CREATE", "UPDATE") or request.kind.key != PODS or request.subresource:
        return
    tolerations: list[Object] = request.obj["spec"].setdefault("tolerations", [])
    for key in KEYS:
        if not any(_covers(item, key) for item in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS})


def _covers(toleration: Object, key: str) -> bool:
    return toleration.get("key", "") in ("", key) and toleration.get("effect", "") in ("", "NoExecute")

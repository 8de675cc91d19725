"""ServiceAccount: every pod runs as an account and finds token, CA and namespace at the usual place. Pure."""

import hashlib
from typing import Final

from controller.api.admission import AdmissionRequest, Lookup, NotYet
from controller.api.status import forbidden
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
SERVICE_ACCOUNTS: Final = ResourceKey("", "serviceaccounts")
MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
ROOT_CA: Final = "kube-root-ca.crt"
EXPIRATION_S: Final = 3607
_MODE: Final = 0o644
_MIRROR: Final = "kubernetes.io/config.mirror"


def admit(request: AdmissionRequest, lookup: Lookup) -> None:
    """Complete a new pod. Raises ``ApiError`` 403 when its service account does not exist."""
    if request.kind.key != PODS or request.operation != "CREATE" or request.subresource:
        return
    pod, spec = request.obj, request.obj.setdefault("spec", {})
    if _MIRROR in (pod["metadata"].get("annotations") or {}):
        return
    name = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    namespace = pod["metadata"].get("namespace", "")
    found = lookup(SERVICE_ACCOUNTS, namespace, name)
    if found is None:
        why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
        refusal = forbidden(PODS, pod["metadata"].get("name", ""), why)
        # A new namespace gets its default account a moment later.
        raise NotYet(refusal) if name == "default" else refusal
    account = found.decode()
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = account.get("automountServiceAccountToken", True)
    if wanted:
        _mount(spec, pod["metadata"].get("uid", "") or pod["metadata"].get("name", ""))


def _mount(spec: Object, seed: str) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    missing = [
        each for each in containers if MOUNT_PATH not in {m.get("mountPath") for m in each.get("volumeMounts") or []}
    ]
    if not missing:
        return
    name = "kube-api-access-" + hashlib.blake2b(seed.encode(), digest_size=3).hexdigest()[:5]
    for container in missing:
        mounts = container.setdefault("volumeMounts", [])
        mounts.append({"name": name, "readOnly": True, "mountPath": MOUNT_PATH})
    spec.setdefault("volumes", []).append({"name": name, "projected": _projection()})


def _projection() -> Object:
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "defaultMode": _MODE,
        "sources": [
            {"serviceAccountToken": {"expirationSeconds": EXPIRATION_S, "path": "token"}},
            {"configMap": {"name": ROOT_CA, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ],
    }

"""What a node's spherelet may do: its own node, its own pods, and what those pods name. Nothing else.

Spec: kube ``plugin/pkg/auth/authorizer/node``. What goes beyond an authorizer (the content of a write) is judged in
``admission/node_restriction.py``.
"""

from typing import Any, Final

from controller.api.access import Attributes, Decision, User
from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey
from controller.store.cache import Cache

PREFIX: Final = "system:node:"
NODES_GROUP: Final = "system:nodes"
PODS: Final = ResourceKey("", "pods")
_READ: Final = ("get", "list", "watch")
_LEASE_NAMESPACE: Final = "kube-node-lease"
_OPEN: Final = frozenset(
    (
        ("", "services"),
        ("discovery.k8s.io", "endpointslices"),
        ("node.k8s.io", "runtimeclasses"),
        ("storage.k8s.io", "csidrivers"),
        ("", "namespaces"),
    )
)
"""Read by every node."""
_REFERENCED: Final = frozenset(("secrets", "configmaps", "persistentvolumeclaims"))
_REVIEWS: Final = frozenset(
    (
        ("authentication.k8s.io", "tokenreviews"),
        ("authorization.k8s.io", "subjectaccessreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
    )
)


def node_name(user: User) -> str | None:
    """The node that ``user`` is, or None for anybody else."""
    if user.name.startswith(PREFIX) and NODES_GROUP in user.groups:
        return user.name.removeprefix(PREFIX)
    return None


class NodeAuthorizer:
    """Decides for nodes; has no opinion (None) on anybody else."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    def decide(self, user: User, asked: Attributes) -> Decision | None:
        node = node_name(user)
        if node is None or not asked.resource:
            return None
        if self._allowed(node, asked):
            return Decision(True)
        return Decision(False, f"node '{node}' may only act on itself, its pods and what its pods reference")

    def _allowed(self, node: str, asked: Attributes) -> bool:
        what = (asked.group, asked.resource)
        if what in _OPEN:
            return asked.verb in _READ
        if what in _REVIEWS:
            return asked.verb == "create"
        match what:
            case ("", "nodes"):
                return self._node(node, asked)
            case ("", "pods"):
                return self._pods(node, asked)
            case ("coordination.k8s.io", "leases"):
                own = asked.name == node or (asked.verb == "create" and not asked.name)
                return asked.namespace == _LEASE_NAMESPACE and own and asked.verb in (
                    "get", "create", "update", "patch", "delete", "list", "watch",
                )  # fmt: skip
            case ("", "events") | ("events.k8s.io", "events"):
                return asked.verb in ("create", "patch", "update")
            case ("", "serviceaccounts"):
                if asked.subresource == "token":
                    return asked.verb == "create" and self._references(node, asked)
                return asked.verb == "get" and self._references(node, asked)
            case ("", "persistentvolumes"):
                return self._volumes(node, asked)
            case ("", plural) if plural in _REFERENCED:
                by_name = asked.verb in _READ and bool(asked.name)
                return by_name and not asked.subresource and self._references(node, asked)
            case _:
                return False

    def _node(self, node: str, asked: Attributes) -> bool:
        if asked.verb in ("list", "watch") or (asked.verb == "create" and not asked.subresource):
            return True
        if asked.verb == "get":
            return not asked.subresource
        return asked.name == node and asked.verb in ("update", "patch") and asked.subresource in ("", "status")

    def _pods(self, node: str, asked: Attributes) -> bool:
        if not asked.subresource and asked.verb in ("list", "watch"):
            return True
        if asked.verb == "create" and not asked.subresource:
            return False
        entry = self._cache.get(PODS, asked.namespace, asked.name)
        # A pod that is gone answers 404, whoever asks: its spherelet must learn that it has gone.
        mine = entry is None or entry.fields.get("spec.nodeName") == node
        if asked.subresource == "status":
            return mine and asked.verb in ("get", "update", "patch")
        return mine and not asked.subresource and asked.verb in ("get", "delete")

    def _volumes(self, node: str, asked: Attributes) -> bool:
        """Volumes made on this host, which it removes the data of, and those bound to claims of its pods."""
        if asked.subresource or asked.verb not in ("get", "list", "watch", "patch"):
            return False
        if not asked.name:
            return asked.verb in ("list", "watch")
        entry = self._cache.get(claims.VOLUMES, "", asked.name)
        if entry is None:
            return asked.verb == "get"
        if entry.labels.get(claims.HOST_LABEL) == node:
            return asked.verb in ("get", "patch")
        ref = (entry.decode()["spec"].get("claimRef") or {}) if asked.verb == "get" else {}
        claim = self._cache.get(claims.CLAIMS, ref.get("namespace", ""), ref.get("name", "")) if ref else None
        if claim is None or claims.volume_of(claim.decode()) != asked.name:
            return False
        named = Attributes("get", "", claims.CLAIMS.plural, "", claim.namespace, claim.name, "")
        return self._references(node, named)

    def _references(self, node: str, asked: Attributes) -> bool:
        """Whether a pod on ``node`` names the object. Linear in the pods of one namespace."""
        for entry in self._cache.list(PODS, asked.namespace):
            if entry.fields.get("spec.nodeName") != node:
                continue
            if asked.name.encode() not in entry.body and asked.resource != claims.CLAIMS.plural:
                continue
            if asked.name in referenced(entry.decode(), asked.resource):
                return True
        return False


def referenced(pod: Object, plural: str) -> set[str]:
    """Names of objects of ``plural`` (in the pod's namespace) that the pod's spec names."""
    spec: dict[str, Any] = pod.get("spec") or {}
    found: set[str] = set()
    if plural == "serviceaccounts":
        return {spec.get("serviceAccountName") or "default"}
    if plural == claims.CLAIMS.plural:
        return {use.claim for use in claims.uses(pod)}
    for volume in spec.get("volumes") or []:
        found |= _volume_names(volume, plural)
    if plural == "secrets":
        found |= {str(secret.get("name")) for secret in spec.get("imagePullSecrets") or []}
    key, ref = ("secretKeyRef", "secretRef") if plural == "secrets" else ("configMapKeyRef", "configMapRef")
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        for container in spec.get(kind) or []:
            for env in container.get("env") or []:
                found.add(str(((env.get("valueFrom") or {}).get(key) or {}).get("name")))
            for source in container.get("envFrom") or []:
                found.add(str((source.get(ref) or {}).get("name")))
    return found - {"None"}


def _volume_names(volume: Object, plural: str) -> set[str]:
    found: set[str] = set()
    match plural:
        case "secrets":
            found.add(str((volume.get("secret") or {}).get("secretName")))
            parts = [(part.get("secret") or {}).get("name") for part in _projected(volume)]
            found |= {str(part) for part in parts}
        case "configmaps":
            found.add(str((volume.get("configMap") or {}).get("name")))
            parts = [(part.get("configMap") or {}).get("name") for part in _projected(volume)]
            found |= {str(part) for part in parts}
    return found


def _projected(volume: Object) -> list[Object]:
    return (volume.get("projected") or {}).get("sources") or []

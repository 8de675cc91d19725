"""The roles and bindings every cluster starts with, reconciled at start: what is missing is added, nothing removed.

Spec: kube ``plugin/pkg/auth/authorizer/rbac/bootstrappolicy``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from common.logs import logger
from controller.api.rbac_index import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, Rule, covers
from controller.api.status import ApiError, is_not_found
from controller.kinds.kind import Object, ResourceKey

log = logger("rbac")
_LABELS: Final = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE: Final = "rbac.authorization.kubernetes.io/autoupdate"
_AGGREGATE: Final = "rbac.authorization.k8s.io/aggregate-to-"
_READ: Final = ("get", "list", "watch")
_WRITE: Final = ("create", "delete", "deletecollection", "patch", "update")


def _rule(groups: str | Iterable[str], resources: str, verbs: Iterable[str]) -> Object:
    listed = [groups] if isinstance(groups, str) else list(groups)
    return {"apiGroups": listed, "resources": resources.split(), "verbs": list(verbs)}


def _urls(urls: str, verbs: Iterable[str] = ("get",)) -> Object:
    return {"nonResourceURLs": urls.split(), "verbs": list(verbs)}


_VIEWED: Final = (
    _rule(
        "",
        "bindings configmaps endpoints events limitranges namespaces namespaces/status persistentvolumeclaims "
        "persistentvolumeclaims/status pods pods/log pods/status replicationcontrollers replicationcontrollers/scale "
        "replicationcontrollers/status resourcequotas resourcequotas/status serviceaccounts services services/status",
        _READ,
    ),
    _rule("discovery.k8s.io", "endpointslices", _READ),
    _rule(
        "apps",
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status "
        "replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status",
        _READ,
    ),
    _rule("autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status", _READ),
    _rule("batch", "cronjobs cronjobs/status jobs jobs/status", _READ),
    _rule("policy", "poddisruptionbudgets poddisruptionbudgets/status", _READ),
    _rule("networking.k8s.io", "ingresses ingresses/status networkpolicies networkpolicies/status", _READ),
    _rule("resource.k8s.io", "resourceclaims resourceclaims/status resourceclaimtemplates", _READ),
    _rule("network.sphere.io", "ports", _READ),
    _rule("metrics.k8s.io", "pods nodes", _READ),
)
_EDITED: Final = (
    _rule("", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy", _READ),
    _rule("", "serviceaccounts", ("impersonate",)),
    _rule("", "pods pods/attach pods/exec pods/portforward pods/proxy", _WRITE),
    _rule("", "pods/eviction", ("create",)),
    _rule(
        "",
        "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets "
        "serviceaccounts services services/proxy",
        _WRITE,
    ),
    _rule("", "serviceaccounts/token", ("create",)),
    _rule(
        "apps",
        "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets "
        "statefulsets/scale",
        _WRITE,
    ),
    _rule("autoscaling", "horizontalpodautoscalers", _WRITE),
    _rule("batch", "cronjobs jobs", _WRITE),
    _rule("policy", "poddisruptionbudgets", _WRITE),
    _rule("networking.k8s.io", "ingresses networkpolicies", _WRITE),
    _rule("resource.k8s.io", "resourceclaims resourceclaimtemplates", _WRITE),
    _rule("coordination.k8s.io", "leases", (*_READ, *_WRITE)),
)
_ADMINISTERED: Final = (
    _rule("authorization.k8s.io", "localsubjectaccessreviews", ("create",)),
    _rule(GROUP, "rolebindings roles", (*_READ, *_WRITE)),
)
_DISCOVERY: Final = (_urls("/api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/"),)
_REVIEWS: Final = (
    _rule("authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews", ("create",)),
    _rule("authentication.k8s.io", "selfsubjectreviews", ("create",)),
)
_METRICS_URLS: Final = "/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"

_ROLES: Final[dict[str, tuple[tuple[Object, ...], tuple[str, ...], tuple[str, ...]]]] = {
    # name: (rules, aggregates into, aggregated from)
    "cluster-admin": ((_rule("*", "*", ("*",)), _urls("*", ("*",))), (), ()),
    "admin": ((), (), ("admin",)),
    "edit": ((), ("admin",), ("edit",)),
    "view": ((), ("edit",), ("view",)),
    "system:aggregate-to-admin": (_ADMINISTERED, ("admin",), ()),
    "system:aggregate-to-edit": (_EDITED, ("edit",), ()),
    "system:aggregate-to-view": (_VIEWED, ("view",), ()),
    "system:discovery": (_DISCOVERY, (), ()),
    "system:public-info-viewer": ((_urls("/healthz /livez /readyz /version /version/"),), (), ()),
    "system:basic-user": (_REVIEWS, (), ()),
    "system:monitoring": ((_urls(_METRICS_URLS),), (), ()),
    "system:service-account-issuer-discovery": (
        (
            _urls(
                "/.well-known/openid-configuration /.well-known/openid-configuration/ /openid/v1/jwks /openid/v1/jwks/"
            ),
        ),
        (),
        (),
    ),
    "system:auth-delegator": (
        (
            _rule("authentication.k8s.io", "tokenreviews", ("create",)),
            _rule("authorization.k8s.io", "subjectaccessreviews", ("create",)),
        ),
        (),
        (),
    ),
    "system:node": ((), (), ()),
    "system:persistent-volume-provisioner": (
        (
            _rule("", "persistentvolumes", (*_READ, "create", "delete")),
            _rule("", "persistentvolumeclaims", (*_READ, "update")),
            _rule("storage.k8s.io", "storageclasses", _READ),
            _rule("", "events", ("watch", "create", "update", "patch")),
        ),
        (),
        (),
    ),
    "system:kubelet-api-admin": (
        (
            _rule("", "nodes", _READ),
            _rule("", "nodes", ("proxy",)),
            _rule("", "nodes/log nodes/metrics nodes/proxy nodes/stats", ("*",)),
        ),
        (),
        (),
    ),
}

_BINDINGS: Final[dict[str, tuple[str, tuple[tuple[str, str], ...]]]] = {
    "cluster-admin": ("cluster-admin", (("Group", "system:masters"),)),
    "system:monitoring": ("system:monitoring", (("Group", "system:monitoring"),)),
    "system:discovery": ("system:discovery", (("Group", "system:authenticated"),)),
    "system:basic-user": ("system:basic-user", (("Group", "system:authenticated"),)),
    "system:public-info-viewer": (
        "system:public-info-viewer",
        (("Group", "system:authenticated"), ("Group", "system:unauthenticated")),
    ),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery",
        (("Group", "system:serviceaccounts"),),
    ),
    "system:node": ("system:node", ()),
}


def _meta(name: str, labels: Mapping[str, str] | None = None) -> Object:
    return {"name": name, "labels": {**_LABELS, **(labels or {})}, "annotations": {AUTOUPDATE: "true"}}


def cluster_roles() -> list[Object]:
    """Every default ClusterRole."""
    found: list[Object] = []
    for name, (rules, into, source) in _ROLES.items():
        role: Object = {
            "apiVersion": f"{GROUP}/v1",
            "kind": "ClusterRole",
            "metadata": _meta(name, {f"{_AGGREGATE}{target}": "true" for target in into}),
            "rules": list(rules),
        }
        if source:
            selectors = [{"matchLabels": {f"{_AGGREGATE}{each}": "true"}} for each in source]
            role["aggregationRule"] = {"clusterRoleSelectors": selectors}
        found.append(role)
    return found


def cluster_role_bindings() -> list[Object]:
    """Every default ClusterRoleBinding."""
    return [
        {
            "apiVersion": f"{GROUP}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _meta(name),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": kind, "name": who} for kind, who in subjects],
        }
        for name, (role, subjects) in _BINDINGS.items()
    ]


def reconciled(wanted: Object, existing: Object) -> Object | None:
    """``existing`` with what it lacks of ``wanted``, or None when it lacks nothing or opted out."""
    meta = existing.get("metadata") or {}
    if (meta.get("annotations") or {}).get(AUTOUPDATE) == "false":
        return None
    merged: Object = {**existing, "metadata": {**meta, "labels": dict(meta.get("labels") or {})}}
    merged["metadata"]["labels"].update(wanted["metadata"]["labels"])
    if wanted["kind"] == "ClusterRole":
        have = [Rule.of(raw) for raw in existing.get("rules") or []]
        missing = [raw for raw in wanted["rules"] if not covers(have, Rule.of(raw))]
        merged["rules"] = [*(existing.get("rules") or []), *missing]
        if "aggregationRule" in wanted:
            merged["aggregationRule"] = wanted["aggregationRule"]
        same = merged["rules"] == (existing.get("rules") or [])
        same = same and merged.get("aggregationRule") == existing.get("aggregationRule")
    else:
        subjects = list(existing.get("subjects") or [])
        merged["subjects"] = subjects + [each for each in wanted["subjects"] if each not in subjects]
        same = merged["subjects"] == subjects
    return None if same and merged["metadata"]["labels"] == (meta.get("labels") or {}) else merged


class Client(Protocol):
    """The part of ``LocalClient`` that is needed here."""

    async def get(self, resource: ResourceKey, namespace: str, name: str) -> Any: ...

    async def create(self, resource: ResourceKey, obj: Object) -> Any: ...

    async def update(self, resource: ResourceKey, obj: Object) -> Any: ...


async def reconcile(client: Client) -> None:
    """Bring the defaults into the cluster. Safe to run at every start. Raises ``ApiError``."""
    for resource, objects in ((CLUSTER_ROLES, cluster_roles()), (CLUSTER_ROLE_BINDINGS, cluster_role_bindings())):
        for wanted in objects:
            name = wanted["metadata"]["name"]
            try:
                existing = await client.get(resource, "", name)
            except ApiError as err:
                if not is_not_found(err):
                    raise
                await client.create(resource, wanted)
                log.info("created default", object=f"{wanted['kind']}//{name}")
                continue
            changed = reconciled(wanted, existing)
            if changed is not None:
                await client.update(resource, changed)
                log.info("completed default", object=f"{wanted['kind']}//{name}")

"""Aggregation, default roles, and what nodes reference."""

from controller.api.access import Attributes, User
from controller.api.node_authorizer import referenced
from controller.api.rbac_bootstrap import cluster_role_bindings, cluster_roles, reconciled
from controller.api.rbac_index import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, RbacIndex


def defaults() -> RbacIndex:
    index = RbacIndex()
    for role in cluster_roles():
        index.put(CLUSTER_ROLES, role)
    for binding in cluster_role_bindings():
        index.put(CLUSTER_ROLE_BINDINGS, binding)
    return index


def bind(index: RbacIndex, role: str, user: str) -> None:
    subjects = [{"kind": "User", "name": user}]
    ref = {"kind": "ClusterRole", "name": role}
    index.put(CLUSTER_ROLE_BINDINGS, {"metadata": {"name": f"{role}-{user}"}, "roleRef": ref, "subjects": subjects})


def can(index: RbacIndex, user: User, verb: str, resource: str, group: str = "") -> bool:
    return index.allowed_by(user, Attributes(verb, group, resource, "", "n", "", "")) is not None


def test_view_edit_and_admin_aggregate() -> None:
    index = defaults()
    for role in ("view", "edit", "admin"):
        bind(index, role, role)
    viewer, editor, admin = User("view"), User("edit"), User("admin")
    assert can(index, viewer, "list", "pods")
    assert not can(index, viewer, "get", "secrets")
    assert can(index, viewer, "get", "resourceclaims", "resource.k8s.io")
    assert can(index, editor, "get", "secrets")
    assert can(index, editor, "list", "pods")
    assert not can(index, editor, "create", "roles", "rbac.authorization.k8s.io")
    assert can(index, admin, "create", "roles", "rbac.authorization.k8s.io")


def test_anonymous_sees_version_only() -> None:
    index, nobody = defaults(), User("system:anonymous", groups=("system:unauthenticated",))
    assert index.allowed_by(nobody, Attributes("get", "", "", "", "", "", "/version"))
    assert index.allowed_by(nobody, Attributes("get", "", "", "", "", "", "/metrics")) is None
    monitor = User("prometheus", groups=("system:monitoring",))
    assert index.allowed_by(monitor, Attributes("get", "", "", "", "", "", "/metrics"))


def test_reconciling_adds_what_is_missing_and_nothing_twice() -> None:
    role = next(each for each in cluster_roles() if each["metadata"]["name"] == "system:basic-user")
    assert reconciled(role, role) is None
    poor = {**role, "rules": role["rules"][:1]}
    completed = reconciled(role, poor)
    assert completed is not None
    assert reconciled(role, completed) is None


def test_removed_bindings_grant_nothing() -> None:
    index = defaults()
    bind(index, "view", "bob")
    assert can(index, User("bob"), "list", "pods")
    index.remove(CLUSTER_ROLE_BINDINGS, "", "view-bob")
    assert not can(index, User("bob"), "list", "pods")


def test_what_a_pod_references() -> None:
    env = [{"valueFrom": {"secretKeyRef": {"name": "e"}}}]
    pod = {
        "spec": {
            "volumes": [{"secret": {"secretName": "v"}}, {"configMap": {"name": "m"}}],
            "containers": [{"env": env, "envFrom": [{"secretRef": {"name": "f"}}]}],
            "imagePullSecrets": [{"name": "pull"}],
        }
    }
    assert referenced(pod, "secrets") == {"v", "e", "f", "pull"}
    assert referenced(pod, "configmaps") == {"m"}
    assert referenced(pod, "serviceaccounts") == {"default"}

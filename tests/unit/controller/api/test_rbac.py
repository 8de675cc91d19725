"""Aggregation, default roles, and what nodes reference."""

from typing import Any

import pytest

from controller.api.access import Attributes, User
from controller.api.admission import AdmissionRequest, node_restriction
from controller.api.node_authorizer import NodeAuthorizer, referenced
from controller.api.rbac_bootstrap import cluster_role_bindings, cluster_roles, reconciled
from controller.api.rbac_index import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, RbacIndex
from controller.api.status import ApiError
from controller.kinds import claims
from controller.kinds.storage import PERSISTENT_VOLUME
from controller.runtime.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from tests.support.model_registry import ModelRegistry


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


NODE = User("system:node:host-1", groups=("system:nodes",))


def asked(verb: str, resource: str, name: str, namespace: str = "") -> Attributes:
    return Attributes(verb, "", resource, "", namespace, name, "")


def test_a_node_reads_what_its_pods_claim_and_reclaims_what_was_made_on_it() -> None:
    registry = ModelRegistry()
    volume = {"persistentVolumeClaim": {"claimName": "data"}}
    ephemeral = {"name": "scratch", "ephemeral": {}}
    spec = {"nodeName": "host-1", "volumes": [{"name": "v", **volume}, ephemeral], "containers": []}
    registry.put(PODS, {"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
    for name in ("data", "other"):
        claim = {"metadata": {"name": name, "namespace": "n"}, "spec": {"volumeName": f"{name}-volume"}}
        registry.put(PERSISTENT_VOLUME_CLAIMS, claim)
        ref = {"claimRef": {"namespace": "n", "name": name}}
        registry.put(PERSISTENT_VOLUMES, {"metadata": {"name": f"{name}-volume"}, "spec": ref})
    for host in ("host-1", "host-2"):
        meta = {"name": f"made-on-{host}", "labels": {claims.HOST_LABEL: host}}
        registry.put(PERSISTENT_VOLUMES, {"metadata": meta, "spec": {}})
    authorizer = NodeAuthorizer(registry)  # type: ignore[arg-type]  # reads only

    def may(verb: str, resource: str, name: str, namespace: str = "") -> bool:
        decision = authorizer.decide(NODE, asked(verb, resource, name, namespace))
        return decision is not None and decision.allowed

    assert may("get", "persistentvolumeclaims", "data", "n")
    assert may("get", "persistentvolumeclaims", "p-scratch", "n")
    assert not may("get", "persistentvolumeclaims", "other", "n")
    assert may("get", "persistentvolumes", "data-volume")
    assert not may("get", "persistentvolumes", "other-volume")
    assert not may("patch", "persistentvolumes", "data-volume")
    assert may("patch", "persistentvolumes", "made-on-host-1")
    assert not may("patch", "persistentvolumes", "made-on-host-2")
    assert not may("delete", "persistentvolumes", "made-on-host-1")
    assert may("watch", "persistentvolumes", "")


@pytest.mark.parametrize(
    ("change", "is_allowed"),
    [
        ({"metadata": {"name": "v", "finalizers": ["other"]}, "spec": {"a": 1}}, True),
        ({"metadata": {"name": "v", "finalizers": []}, "spec": {"a": 1}}, False),
        ({"metadata": {"name": "v", "finalizers": ["other"]}, "spec": {"a": 2}}, False),
        ({"metadata": {"name": "v", "finalizers": ["other"], "labels": {"a": "b"}}, "spec": {"a": 1}}, False),
    ],
)
def test_a_node_changes_nothing_of_a_volume_but_its_own_finalizer(change: dict[str, Any], is_allowed: bool) -> None:
    old = {"metadata": {"name": "v", "finalizers": ["other", claims.PROVISIONER]}, "spec": {"a": 1}}
    request = AdmissionRequest("UPDATE", PERSISTENT_VOLUME, change, old, NODE, "", dry_run=False)
    if is_allowed:
        node_restriction.admit(request, lambda *_: None)
    else:
        with pytest.raises(ApiError, match="only allowed to remove the finalizer"):
            node_restriction.admit(request, lambda *_: None)

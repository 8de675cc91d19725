"""Validators of the main kinds: each common mistake is named at its path, valid objects pass."""

import copy
from typing import Any

import pytest

from controller.kinds.kind import ResourceKey
from controller.kinds.pod import qos_class
from controller.kinds.registry import REGISTRY


def problems(group: str, plural: str, obj: dict[str, Any]) -> list[tuple[str, str]]:
    kind = REGISTRY.lookup(group, "v1", plural)
    assert kind is not None
    obj = copy.deepcopy(obj)
    kind.default(obj)
    return [(error.type.removeprefix("FieldValue"), error.path) for error in kind.validate(obj)]


def pod(**container: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", **container}]}}


C0 = "spec.containers[0]"


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, []),
        ({"image": ""}, [("Required", f"{C0}.image")]),
        ({"name": "A"}, [("Invalid", f"{C0}.name")]),
        ({"ports": [{"containerPort": 0}]}, [("Required", f"{C0}.ports[0].containerPort")]),
        ({"ports": [{"containerPort": 70000}]}, [("Invalid", f"{C0}.ports[0].containerPort")]),
        ({"env": [{"name": ""}]}, [("Required", f"{C0}.env[0].name")]),
        ({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}, [("NotFound", f"{C0}.volumeMounts[0].name")]),
        ({"livenessProbe": {}}, [("Required", f"{C0}.livenessProbe")]),
        (
            {"livenessProbe": {"httpGet": {"port": 80}, "successThreshold": 2}},
            [("Invalid", f"{C0}.livenessProbe.successThreshold")],
        ),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
            [("Invalid", f"{C0}.resources.requests")],
        ),
        ({"resources": {"limits": {"cpu": "-1"}}}, [("Invalid", f"{C0}.resources.limits[cpu]")]),
        ({"imagePullPolicy": "Sometimes"}, [("NotSupported", f"{C0}.imagePullPolicy")]),
    ],
)
def test_container_mistakes(container: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    found = problems("", "pods", pod(**container))
    assert [each for each in found if each in expected] == expected
    assert bool(found) == bool(expected)


def test_duplicate_names_and_missing_containers() -> None:
    twice = pod()
    twice["spec"]["containers"] *= 2
    assert ("Duplicate", "spec.containers[1].name") in problems("", "pods", twice)
    assert ("Required", "spec.containers") in problems("", "pods", {"metadata": {}, "spec": {}})


def deployment(labels: dict[str, str], selector: dict[str, str]) -> dict[str, Any]:
    template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
    return {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": selector}, "template": template}}


def test_deployment_selector_must_match_template() -> None:
    assert problems("apps", "deployments", deployment({"a": "b"}, {"a": "b"})) == []
    path = "spec.template.metadata.labels"
    assert problems("apps", "deployments", deployment({"a": "c"}, {"a": "b"})) == [("Invalid", path)]


def test_deployment_selector_is_immutable() -> None:
    kind = REGISTRY.lookup("apps", "v1", "deployments")
    assert kind is not None
    errors = kind.validate_update(deployment({}, {"a": "x"}), deployment({}, {"a": "b"}))
    assert [error.path for error in errors] == ["spec.selector"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"ports": [{"port": 80}]}, []),
        ({}, [("Required", "spec.ports")]),
        ({"clusterIP": "None"}, []),
        ({"ports": [{"port": 1}, {"port": 2}]}, [("Required", f"spec.ports[{i}].name") for i in (0, 1)]),
        ({"type": "Odd", "ports": [{"port": 80}]}, [("NotSupported", "spec.type")]),
        ({"type": "ExternalName"}, [("Required", "spec.externalName")]),
        ({"ports": [{"port": 80, "nodePort": 30000}]}, [("Forbidden", "spec.ports[0].nodePort")]),
    ],
)
def test_service_mistakes(spec: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    assert problems("", "services", {"metadata": {"name": "s"}, "spec": spec}) == expected


@pytest.mark.parametrize(
    ("peer", "ok"),
    [
        ({"podSelector": {}}, True),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, True),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}, False),
        ({"ipBlock": {"cidr": "10.0.0.0"}}, False),
        ({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}, False),
        ({}, False),
    ],
)
def test_network_policy_peers(peer: dict[str, Any], ok: bool) -> None:
    policy = {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"from": [peer]}]}}
    assert (problems("networking.k8s.io", "networkpolicies", policy) == []) is ok


def test_network_policy_end_port() -> None:
    port = {"port": 90, "endPort": 80}
    policy = {"metadata": {"name": "n"}, "spec": {"podSelector": {}, "ingress": [{"ports": [port]}]}}
    found = problems("networking.k8s.io", "networkpolicies", policy)
    assert found == [("Invalid", "spec.ingress[0].ports[0].endPort")]


def test_pod_spec_is_immutable_but_for_images() -> None:
    kind = REGISTRY.lookup("", "v1", "pods")
    assert kind is not None
    old, image, command = pod(), pod(image="other"), pod(command=["x"])
    assert kind.validate_update(image, old) == []
    assert [error.path for error in kind.validate_update(command, old)] == ["spec"]


def test_tolerations_are_added_and_last_longer_but_do_not_go() -> None:
    kind = REGISTRY.lookup("", "v1", "pods")
    assert kind is not None

    def tolerating(*tolerations: dict[str, Any]) -> dict[str, Any]:
        found = pod()
        found["spec"]["tolerations"] = list(tolerations)
        return found

    first = {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    old, longer = tolerating(first), tolerating({**first, "tolerationSeconds": 600}, {"key": "b", "operator": "Exists"})
    assert kind.validate_update(longer, old) == []
    for wrong in (tolerating(), tolerating({**first, "effect": "NoSchedule"})):
        assert [error.path for error in kind.validate_update(wrong, old)] == ["spec.tolerations"]


@pytest.mark.parametrize(
    ("names", "shares", "expected"),
    [
        (["kernel.shm_rmid_forced", "net/ipv4/tcp_syncookies", "safe-and-unsafe"], {}, []),
        (["foo-", "kernel.shmmax", "bar.."], {}, [("Invalid", 0), ("Invalid", 2)]),
        (["", "a" * 254, "fs.mqueue.msg_max"], {}, [("Required", 0), ("Invalid", 1)]),
        (["kernel.sem", "kernel.sem"], {}, [("Duplicate", 1)]),
        (["kernel.sem", "net.ipv4.tcp_rmem"], {"hostNetwork": True}, [("Invalid", 1)]),
        (["kernel.sem", "net/ipv4/tcp_rmem"], {"hostIPC": True}, [("Invalid", 0)]),
    ],
)
def test_sysctl_names(names: list[str], shares: dict[str, Any], expected: list[tuple[str, int]]) -> None:
    wanted = pod()
    wanted["spec"] |= {"securityContext": {"sysctls": [{"name": name, "value": "1"} for name in names]}, **shares}
    found = problems("", "pods", wanted)
    assert found == [(kind, f"spec.securityContext.sysctls[{index}].name") for kind, index in expected]


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "0"}}, "BestEffort"),
        ({"requests": {"cpu": "100m"}}, "Burstable"),
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "0.5", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1024Mi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Mi"}}, "Burstable"),
    ],
)
def test_qos_class_goes_by_amounts(resources: dict[str, Any], expected: str) -> None:
    assert qos_class({"containers": [{"resources": resources}]}) == expected


def test_a_write_of_a_deployments_status_leaves_its_labels_alone() -> None:
    confine = REGISTRY.by_key(ResourceKey("apps", "deployments")).subwrites["status"].confine
    old = {"metadata": {"labels": {"app": "a"}}}
    new = {"metadata": {"labels": {"app": "b"}, "annotations": {"seen": "yes"}}}
    confine(new, old)
    assert new == {"metadata": {"labels": {"app": "a"}, "annotations": {"seen": "yes"}}}
    confine(new, {"metadata": {}})
    assert "labels" not in new["metadata"]

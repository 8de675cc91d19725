"""Kinds that nothing acts on yet still have upstream's defaults, refuse nonsense, and keep what may not change."""

import copy
from typing import Any

import pytest

from controller.kinds.columns import dig
from controller.kinds.kind import Kind, Object
from controller.kinds.registry import REGISTRY

WEBHOOK: Object = {
    "name": "a.example.com",
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
    "clientConfig": {"service": {"namespace": "n", "name": "s"}},
    "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
}
MATCH: Object = {
    "resourceRules": [{"operations": ["*"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*"]}]
}
VOLUME: Object = {
    "spec": {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "csi": {"driver": "d", "volumeHandle": "h"},
    }
}
CLAIM: Object = {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}
DEVICES: Object = {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}}
LEVEL: Object = {"spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}}
INGRESS: Object = {"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}
TEMPLATE: Object = {"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}


def kind(path: str) -> Kind:
    group, _, plural = path.rpartition("/")
    found = REGISTRY.lookup(group, "v1", plural)
    assert found is not None
    return found


def defaulted(path: str, obj: Object) -> Object:
    made = copy.deepcopy({"metadata": {"name": "x", "namespace": "d"}, **obj})
    kind(path).default(made)
    return made


@pytest.mark.parametrize(
    ("path", "obj", "field", "value"),
    [
        ("/persistentvolumes", VOLUME, "spec.persistentVolumeReclaimPolicy", "Retain"),
        ("/persistentvolumes", VOLUME, "spec.volumeMode", "Filesystem"),
        ("/persistentvolumeclaims", CLAIM, "spec.volumeMode", "Filesystem"),
        ("/podtemplates", TEMPLATE, "template.spec.restartPolicy", "Always"),
        ("storage.k8s.io/storageclasses", {"provisioner": "p"}, "reclaimPolicy", "Delete"),
        ("storage.k8s.io/storageclasses", {"provisioner": "p"}, "volumeBindingMode", "Immediate"),
        ("storage.k8s.io/csidrivers", {"spec": {}}, "spec.attachRequired", True),
        ("storage.k8s.io/csidrivers", {"spec": {}}, "spec.fsGroupPolicy", "ReadWriteOnceWithFSType"),
        ("storage.k8s.io/csidrivers", {"spec": {}}, "spec.volumeLifecycleModes", ["Persistent"]),
        (
            "flowcontrol.apiserver.k8s.io/flowschemas",
            {"spec": {"priorityLevelConfiguration": {"name": "p"}}},
            "spec.matchingPrecedence",
            1000,
        ),
        ("flowcontrol.apiserver.k8s.io/prioritylevelconfigurations", LEVEL, "spec.limited.lendablePercent", 0),
        (
            "flowcontrol.apiserver.k8s.io/prioritylevelconfigurations",
            LEVEL,
            "spec.limited.limitResponse.queuing",
            {"queues": 64, "handSize": 8, "queueLengthLimit": 50},
        ),
        (
            "admissionregistration.k8s.io/validatingadmissionpolicies",
            {"spec": {"matchConstraints": MATCH, "validations": [{"expression": "true"}]}},
            "spec.matchConstraints.matchPolicy",
            "Equivalent",
        ),
        (
            "networking.k8s.io/ingressclasses",
            {"spec": {"controller": "c", "parameters": {"kind": "K", "name": "n"}}},
            "spec.parameters.scope",
            "Cluster",
        ),
    ],
)
def test_defaults(path: str, obj: Object, field: str, value: Any) -> None:
    made = defaulted(path, obj)
    assert dig(made, field) == value
    assert kind(path).validate(made) == []


def test_webhooks_say_everything() -> None:
    for plural, reinvoked in (("validatingwebhookconfigurations", None), ("mutatingwebhookconfigurations", "Never")):
        made = defaulted(f"admissionregistration.k8s.io/{plural}", {"webhooks": [WEBHOOK]})["webhooks"][0]
        assert (made["failurePolicy"], made["matchPolicy"], made["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
        assert (made["namespaceSelector"], made["objectSelector"], made["rules"][0]["scope"]) == ({}, {}, "*")
        assert made["clientConfig"]["service"]["port"] == 443
        assert made.get("reinvocationPolicy") == reinvoked


def test_a_device_request_asks_for_one() -> None:
    for path, obj in (("resourceclaims", {"spec": DEVICES}), ("resourceclaimtemplates", {"spec": {"spec": DEVICES}})):
        made = defaulted(f"resource.k8s.io/{path}", obj)
        where = "spec.devices.requests" if path == "resourceclaims" else "spec.spec.devices.requests"
        assert dig(made, where)[0]["exactly"] == {"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1}
        assert kind(f"resource.k8s.io/{path}").validate(made) == []


def test_volumes_and_claims_are_pending() -> None:
    for plural, obj in (("persistentvolumes", VOLUME), ("persistentvolumeclaims", CLAIM)):
        made = defaulted(f"/{plural}", obj)
        kind(f"/{plural}").prepare_create(made)
        assert made["status"] == {"phase": "Pending"}


@pytest.mark.parametrize(
    ("path", "obj", "field"),
    [
        ("/persistentvolumes", {"spec": {**VOLUME["spec"], "csi": {}, "nfs": {}}}, "spec.nfs"),
        ("/persistentvolumes", {"spec": {**VOLUME["spec"], "capacity": {}}}, "spec.capacity"),
        ("/persistentvolumeclaims", {"spec": {**CLAIM["spec"], "accessModes": []}}, "spec.accessModes"),
        ("/persistentvolumeclaims", {"spec": {**CLAIM["spec"], "resources": {}}}, "spec.resources[storage]"),
        ("storage.k8s.io/storageclasses", {}, "provisioner"),
        ("storage.k8s.io/volumeattachments", {"spec": {"attacher": "a", "nodeName": "n", "source": {}}}, "spec.source"),
        ("storage.k8s.io/csinodes", {"spec": {"drivers": [{"name": "d"}]}}, "spec.drivers[0].nodeID"),
        ("node.k8s.io/runtimeclasses", {"handler": "Not_A_Label"}, "handler"),
        ("policy/poddisruptionbudgets", {"spec": {"minAvailable": 1, "maxUnavailable": 1}}, "spec"),
        ("networking.k8s.io/ingresses", {"spec": {}}, "spec"),
        ("networking.k8s.io/ingresses", {"spec": {"rules": [{"host": "1.2.3.4"}]}}, "spec.rules[0].host"),
        ("networking.k8s.io/ingressclasses", {"spec": {}}, "spec.controller"),
        ("resource.k8s.io/resourceslices", {"spec": {"driver": "d", "pool": {"name": "p"}}}, "spec"),
        (
            "admissionregistration.k8s.io/validatingwebhookconfigurations",
            {"webhooks": [{**WEBHOOK, "name": "short"}]},
            "webhooks[0].name",
        ),
        (
            "admissionregistration.k8s.io/mutatingwebhookconfigurations",
            {"webhooks": [{**WEBHOOK, "matchConditions": [{"name": "m", "expression": "a b"}]}]},
            "webhooks[0].matchConditions[0].expression",
        ),
        (
            "admissionregistration.k8s.io/validatingadmissionpolicies",
            {"spec": {"matchConstraints": MATCH, "validations": [{"expression": "object."}]}},
            "spec.validations[0].expression",
        ),
        (
            "resource.k8s.io/deviceclasses",
            {"spec": {"selectors": [{"cel": {"expression": "("}}]}},
            "spec.selectors[0].cel.expression",
        ),
        (
            "admissionregistration.k8s.io/validatingadmissionpolicybindings",
            {"spec": {"policyName": "p"}},
            "spec.validationActions",
        ),
        ("flowcontrol.apiserver.k8s.io/flowschemas", {"spec": {}}, "spec.priorityLevelConfiguration.name"),
    ],
)
def test_nonsense_is_refused(path: str, obj: Object, field: str) -> None:
    assert field in [error.path for error in kind(path).validate(defaulted(path, obj))]


@pytest.mark.parametrize(
    ("path", "obj", "changed"),
    [
        ("node.k8s.io/runtimeclasses", {"handler": "a"}, {"handler": "b"}),
        ("storage.k8s.io/storageclasses", {"provisioner": "a"}, {"provisioner": "b"}),
        ("storage.k8s.io/storageclasses", {"provisioner": "a"}, {"provisioner": "a", "parameters": {"x": "y"}}),
        ("storage.k8s.io/csidrivers", {"spec": {}}, {"spec": {"attachRequired": False}}),
        (
            "storage.k8s.io/csistoragecapacities",
            {"storageClassName": "a", "nodeTopology": {}},
            {"storageClassName": "b", "nodeTopology": {}},
        ),
        ("/persistentvolumes", VOLUME, {"spec": {**VOLUME["spec"], "csi": {"driver": "d", "volumeHandle": "other"}}}),
        ("/persistentvolumeclaims", CLAIM, {"spec": {**CLAIM["spec"], "accessModes": ["ReadWriteMany"]}}),
        ("networking.k8s.io/ingressclasses", {"spec": {"controller": "a"}}, {"spec": {"controller": "b"}}),
        ("resource.k8s.io/resourceclaims", {"spec": DEVICES}, {"spec": {}}),
    ],
)
def test_some_fields_never_change(path: str, obj: Object, changed: Object) -> None:
    old = defaulted(path, obj)
    assert kind(path).validate_update(copy.deepcopy(old), old) == []
    assert kind(path).validate_update(defaulted(path, changed), old) != []


def test_a_claim_is_bound_once() -> None:
    claims = kind("/persistentvolumeclaims")
    free = defaulted("/persistentvolumeclaims", CLAIM)
    bound = copy.deepcopy(free)
    bound["spec"]["volumeName"] = "one"
    other = copy.deepcopy(free)
    other["spec"]["volumeName"] = "two"
    assert claims.validate_update(bound, free) == []
    assert claims.validate_update(other, bound) != []

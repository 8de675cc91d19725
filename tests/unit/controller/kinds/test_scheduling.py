"""PriorityClasses and ReplicationControllers: what defaults make of them, and what is refused."""

from typing import Any

import pytest

from controller.kinds.kind import ResourceKey
from controller.kinds.registry import REGISTRY

CLASS = REGISTRY.by_key(ResourceKey("scheduling.k8s.io", "priorityclasses"))
CONTROLLER = REGISTRY.by_key(ResourceKey("", "replicationcontrollers"))
LABELS = {"app": "a"}


def priority_class(value: int, name: str = "p", **fields: Any) -> dict[str, Any]:
    obj = {"metadata": {"name": name}, "value": value, **fields}
    CLASS.default(obj)
    return obj


def test_a_priority_class_keeps_its_value_and_policy_for_life() -> None:
    old = priority_class(1)
    assert old["preemptionPolicy"] == "PreemptLowerPriority"
    assert not CLASS.validate_update(priority_class(1, description="other"), old)
    assert [each.path for each in CLASS.validate_update(priority_class(10), old)] == ["value"]
    changed = priority_class(1, preemptionPolicy="Never")
    assert [each.path for each in CLASS.validate_update(changed, old)] == ["preemptionPolicy"]


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("p", 1_000_000_000, []),
        ("p", 1_000_000_001, ["value"]),
        ("system-of-mine", 1, ["metadata.name"]),
        ("system-node-critical", 2_000_001_000, []),
        ("system-node-critical", 5, ["metadata.name"]),
    ],
)
def test_what_is_above_all_users_is_the_systems(name: str, value: int, wrong: list[str]) -> None:
    assert [each.path for each in CLASS.validate(priority_class(value, name))] == wrong


def replication_controller(**spec: Any) -> dict[str, Any]:
    obj = {"metadata": {"name": "rc", "namespace": "d"}, "spec": spec}
    CONTROLLER.default(obj)
    CONTROLLER.prepare_create(obj)
    return obj


def template(policy: str = "Always") -> dict[str, Any]:
    spec = {"restartPolicy": policy, "containers": [{"name": "c", "image": "busybox"}]}
    return {"metadata": {"labels": dict(LABELS)}, "spec": spec}


def test_a_replication_controller_is_completed_from_its_template() -> None:
    rc = replication_controller(template=template())
    assert (rc["spec"]["selector"], rc["metadata"]["labels"], rc["spec"]["replicas"]) == (LABELS, LABELS, 1)
    assert rc["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    assert not CONTROLLER.validate(rc)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"replicas": -1, "template": template()}, "spec.replicas"),
        ({"selector": {"app": "b"}, "template": template()}, "spec.template.metadata.labels"),
        ({"selector": LABELS}, "spec.template"),
        ({"template": template("Never")}, "spec.template.spec.restartPolicy"),
    ],
)
def test_impossible_replication_controllers_are_refused(spec: dict[str, Any], path: str) -> None:
    assert path in {each.path for each in CONTROLLER.validate(replication_controller(**spec))}

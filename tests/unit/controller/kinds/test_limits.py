"""What quotas count, what limit ranges say, and how both are written down."""

from typing import Any

import pytest

from controller.api.admission import limit_ranger
from controller.kinds import usage
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.limits import LIMIT_RANGE, RESOURCE_QUOTA

SECRETS = ResourceKey("", "secrets")
DEPLOYMENTS = ResourceKey("apps", "deployments")


def container(name: str = "c", **resources: Object) -> Object:
    return {"name": name, "resources": resources}


def pod(*containers: Object, phase: str = "Running", **spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}, "status": {"phase": phase}}


def quota(hard: Object, **spec: Any) -> Object:
    return {"metadata": {"name": "q"}, "spec": {"hard": hard, **spec}}


def used(found: Object, *objects: tuple[ResourceKey, Object]) -> dict[str, str]:
    return {name: str(amount) for name, amount in usage.used_of(found, objects).items()}


def test_a_pod_uses_what_it_asks_and_ended_ones_only_their_place() -> None:
    busy = pod(
        container(requests={"cpu": "500m", "memory": "1Gi"}, limits={"cpu": "1"}), container("d", requests={"cpu": "1"})
    )
    done = pod(container(requests={"cpu": "8"}), phase="Succeeded")
    hard = {
        "pods": "9",
        "cpu": "9",
        "requests.cpu": "9",
        "limits.cpu": "9",
        "requests.memory": "9Gi",
        "count/pods": "9",
    }
    assert used(quota(hard), (usage.PODS, busy), (usage.PODS, done)) == {
        "pods": "1",
        "cpu": "1500m",
        "requests.cpu": "1500m",
        "limits.cpu": "1",
        "requests.memory": "1Gi",
        "count/pods": "2",
    }


def test_the_biggest_init_step_counts_when_it_is_more() -> None:
    init = [container("i", requests={"cpu": "3"}), {**container("s", requests={"cpu": "1"}), "restartPolicy": "Always"}]
    busy = pod(container(requests={"cpu": "1"}), initContainers=init)
    assert used(quota({"cpu": "9"}), (usage.PODS, busy)) == {"cpu": "3"}


def test_objects_services_and_claims_are_counted_by_name() -> None:
    service = {"spec": {"type": "LoadBalancer", "ports": [{}, {}]}}
    claim = {"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "5Gi"}}}}
    hard = {"services": "9", "services.nodeports": "9", "services.loadbalancers": "9", "secrets": "9"}
    hard |= {"count/deployments.apps": "9", "requests.storage": "9", "persistentvolumeclaims": "9"}
    hard |= {"fast.storageclass.storage.k8s.io/requests.storage": "9"}
    found = used(
        quota(hard),
        (usage.SERVICES, service),
        (usage.CLAIMS, claim),
        (SECRETS, {}),
        (DEPLOYMENTS, {}),
        (DEPLOYMENTS, {}),
    )
    assert found == {
        "services": "1",
        "services.nodeports": "2",
        "services.loadbalancers": "1",
        "secrets": "1",
        "count/deployments.apps": "2",
        "requests.storage": "5Gi",
        "persistentvolumeclaims": "1",
        "fast.storageclass.storage.k8s.io/requests.storage": "5Gi",
    }


@pytest.mark.parametrize(
    ("spec", "covered"),
    [
        ({"scopes": ["BestEffort"]}, False),
        ({"scopes": ["NotBestEffort"]}, True),
        ({"scopes": ["Terminating"]}, False),
        ({"scopes": ["NotTerminating", "NotBestEffort"]}, True),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["a"]}]
                }
            },
            True,
        ),
        ({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}}, False),
        ({"scopes": ["CrossNamespacePodAffinity"]}, False),
    ],
)
def test_scopes(spec: Object, covered: bool) -> None:
    asked = pod(container(requests={"cpu": "1"}), priorityClassName="a")
    assert usage.covers(quota({"pods": "1"}, **spec), usage.PODS, asked) is covered
    assert not usage.covers(quota({"pods": "1"}, **spec), SECRETS, {})


def test_what_must_be_said_to_be_counted() -> None:
    found = quota({"limits.cpu": "1", "memory": "1", "pods": "1"})
    assert usage.unsaid(found, pod(container(), container("d", limits={"cpu": "1"}))) == (
        "limits.cpu for: c; memory for: c,d"
    )


def a_range(**item: Any) -> Object:
    made: Object = {"spec": {"limits": [{"type": "Container", **item}]}}
    LIMIT_RANGE.default(made)
    return made


def problems(found: Object, asked: Object) -> list[str]:
    return limit_ranger.pod_problems(asked, found["spec"]["limits"])


def test_bounds_are_named_with_what_was_asked() -> None:
    found = a_range(min={"cpu": "100m"}, max={"cpu": "1"}, maxLimitRequestRatio={"cpu": "2"})
    assert problems(found, pod(container(requests={"cpu": "50m"}, limits={"cpu": "2"}))) == [
        "minimum cpu usage per Container is 100m, but request is 50m",
        "maximum cpu usage per Container is 1, but limit is 2",
        "cpu max limit to request ratio per Container is 2, but provided ratio is 40.000000",
    ]
    assert problems(found, pod(container(requests={"cpu": "500m"}, limits={"cpu": "1"}))) == []
    assert problems(a_range(max={"memory": "1"}), pod(container())) == [
        "maximum memory usage per Container is 1.  No limit is specified"
    ]


def test_one_bound_lends_itself_to_the_defaults() -> None:
    item = a_range(max={"cpu": "2"}, min={"memory": "1Mi"})["spec"]["limits"][0]
    assert (item["default"], item["defaultRequest"]) == ({"cpu": "2"}, {"cpu": "2", "memory": "1Mi"})


@pytest.mark.parametrize(
    ("scope", "hard", "fits"),
    [
        ("BestEffort", {"pods": "1"}, True),
        ("BestEffort", {"pods": "1", "cpu": "1"}, False),
        ("NotBestEffort", {"requests.memory": "1", "example.com/things": "1"}, True),
        ("Terminating", {"configmaps": "1"}, False),
        ("VolumeAttributesClass", {"persistentvolumeclaims": "1"}, True),
    ],
)
def test_a_scope_limits_what_has_it(scope: str, hard: Object, fits: bool) -> None:
    found = [error.detail for error in RESOURCE_QUOTA.validate(quota(hard, scopes=[scope]))]
    assert (found == []) is fits, found


def test_contradictions_are_refused() -> None:
    made = a_range(min={"cpu": "2"}, max={"cpu": "1"})
    assert "min value 2 is greater than max value 1" in [error.detail for error in LIMIT_RANGE.validate(made)]
    both = quota({"pods": "1"}, scopes=["BestEffort", "NotBestEffort"])
    assert [error.detail for error in RESOURCE_QUOTA.validate(both)] == ["conflicting scopes"]

"""Defaults of the main kinds, and that applying them twice changes nothing."""

import copy
from typing import Any

import pytest

from controller.kinds.pod_defaults import image_pull_policy
from controller.kinds.registry import REGISTRY
from controller.kinds.schemas import Schemas


def kind(group: str, plural: str) -> Any:
    found = REGISTRY.lookup(group, "v1", plural)
    assert found is not None
    return found


POD = {"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}}


def test_pod_gets_upstreams_defaults() -> None:
    pod = copy.deepcopy(POD)
    kind("", "pods").default(pod)
    spec = pod["spec"]
    assert (spec["restartPolicy"], spec["dnsPolicy"], spec["schedulerName"]) == (
        "Always",
        "ClusterFirst",
        "default-scheduler",
    )
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["enableServiceLinks"] is True
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    assert spec["containers"][0]["terminationMessagePath"] == "/dev/termination-log"


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("localhost:5000/busybox", "Always"),
        ("localhost:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert image_pull_policy(image) == policy


def test_a_negative_grace_period_is_one_second() -> None:
    for given, kept in ((-1, 1), (0, 0), (5, 5)):
        obj = {"metadata": {"name": "p"}, "spec": {"terminationGracePeriodSeconds": given, "containers": []}}
        kind("", "pods").default(obj)
        assert obj["spec"]["terminationGracePeriodSeconds"] == kept


def test_requests_come_from_limits() -> None:
    pod = copy.deepcopy(POD)
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}
    kind("", "pods").default(pod)
    assert pod["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1"}


def test_deployment_and_service_defaults() -> None:
    deployment: dict[str, Any] = {"metadata": {}, "spec": {"template": copy.deepcopy(POD)}}
    kind("apps", "deployments").default(deployment)
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert deployment["spec"]["revisionHistoryLimit"] == 10
    assert deployment["spec"]["progressDeadlineSeconds"] == 600
    service: dict[str, Any] = {"metadata": {}, "spec": {"ports": [{"port": 80}]}}
    kind("", "services").default(service)
    assert service["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert service["spec"]["ipFamilies"] == ["IPv4"]


def test_secret_string_data_lands_in_data() -> None:
    secret: dict[str, Any] = {"metadata": {}, "stringData": {"a": "b"}}
    kind("", "secrets").default(secret)
    assert secret["data"] == {"a": "Yg=="}
    assert "stringData" not in secret


@pytest.mark.parametrize("each", REGISTRY.all(), ids=lambda k: f"{k.plural}.{k.group}")
def test_defaults_are_idempotent(each: Any) -> None:
    obj: dict[str, Any] = {"metadata": {"name": "x"}}
    if each.kind in ("Deployment", "ReplicaSet"):
        obj["spec"] = {"template": copy.deepcopy(POD)}
    each.default(obj)
    once = copy.deepcopy(obj)
    each.default(obj)
    assert obj == once


def test_every_kind_has_a_schema() -> None:
    schemas = Schemas.load()
    assert [k.schema for k in REGISTRY.all() if k.schema not in schemas] == []

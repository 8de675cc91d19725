"""Schemas: unknown fields, decoding errors, normal form, merge keys."""

from typing import Any

import pytest

from controller.kinds.schemas import Schemas

DEPLOYMENT = "io.k8s.api.apps.v1.Deployment"
POD = "io.k8s.api.core.v1.Pod"


def test_unknown_fields_are_named_with_indices() -> None:
    obj = {"spec": {"containers": [{"name": "c", "foo": 1}], "bar": 2}, "metadata": {"labels": {"any": "thing"}}}
    assert Schemas.load().check(POD, obj) == (["spec.containers[0].foo", "spec.bar"], [])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"replicas": "x"}, "string into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ({"paused": 1}, "number into Go struct field DeploymentSpec.spec.paused of type bool"),
        ({"replicas": 2**31}, f"number {2**31} into Go struct field DeploymentSpec.spec.replicas of type int32"),
    ],
)
def test_wrong_types_read_as_upstream(spec: dict[str, Any], message: str) -> None:
    assert Schemas.load().check(DEPLOYMENT, {"spec": spec}) == ([], [f"json: cannot unmarshal {message}"])


def test_normal_form_has_no_nulls_and_canonical_quantities() -> None:
    pod = {
        "metadata": {"labels": {}, "creationTimestamp": None},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}}}], "nope": 1},
    }
    Schemas.load().normalize(POD, pod)
    assert pod["metadata"] == {}
    assert pod["spec"] == {"containers": [{"name": "c", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}}}]}


def test_merge_keys_of_lists() -> None:
    containers = Schemas.load().get("io.k8s.api.core.v1.PodSpec").field("containers")
    assert (containers.patch_merge_key, containers.list_map_keys) == ("name", ("name",))
    assert "merge" in containers.patch_strategy


def test_our_status_of_network_policies_is_known() -> None:
    policy = {"status": {"conditions": [{"type": "Realized", "status": "True"}]}}
    assert Schemas.load().check("io.k8s.api.networking.v1.NetworkPolicy", policy) == ([], [])


def test_a_time_is_stored_in_one_form_however_it_was_written() -> None:
    lease = {"metadata": {"creationTimestamp": "2026-11-23T08:32:41.5+02:00"}, "spec": {"renewTime": None}}
    lease["spec"] = {"renewTime": "2026-11-23T06:32:41+00:00", "acquireTime": "2026-11-23T06:32:41.123456Z"}
    schemas, name = Schemas.load(), "io.k8s.api.coordination.v1.Lease"
    assert schemas.check(name, lease) == ([], [])
    schemas.normalize(name, lease)
    assert lease["metadata"] == {"creationTimestamp": "2026-11-23T06:32:41Z"}
    assert lease["spec"] == {"renewTime": "2026-11-23T06:32:41.000000Z", "acquireTime": "2026-11-23T06:32:41.123456Z"}


def test_a_day_is_no_time() -> None:
    _, errors = Schemas.load().check("io.k8s.api.coordination.v1.Lease", {"spec": {"renewTime": "2026-11-23"}})
    assert errors == ['parsing time "2026-11-23" as "2006-01-02T15:04:05Z07:00": cannot parse "2026-11-23" as "2006"']

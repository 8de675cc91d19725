"""Server-side apply: ownership, conflicts, giving up."""

import copy

import pytest

from controller.api import managed
from controller.api.status import ApiError
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.registry import REGISTRY
from controller.kinds.schemas import Schemas

KIND = REGISTRY.by_key(ResourceKey("apps", "deployments"))
SHAPE = Schemas.load().get(KIND.schema)
EMPTY: Object = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}}


def config(replicas: int | None, *containers: Object) -> Object:
    spec: Object = {"template": {"spec": {"containers": list(containers)}}}
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def apply(live: Object, wanted: Object, manager: str, *, force: bool = False, now: str = "t1") -> Object:
    return managed.apply(SHAPE, live, copy.deepcopy(wanted), manager, "", now, force=force, kind=KIND)


def test_a_conflict_names_manager_and_field() -> None:
    live = apply(EMPTY, config(1, {"name": "a", "image": "x"}), "one")
    with pytest.raises(ApiError) as caught:
        apply(live, config(2, {"name": "a", "image": "y"}), "two")
    assert caught.value.code == 409
    assert caught.value.message == (
        'Apply failed with 2 conflicts: conflicts with "one":\n'
        '- .spec.replicas\n- .spec.template.spec.containers[name="a"].image'
    )
    assert caught.value.details["causes"][0] == {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "one"',
        "field": ".spec.replicas",
    }


def test_force_takes_the_field_over() -> None:
    live = apply(EMPTY, config(1), "one")
    live = apply(live, config(2), "two", force=True)
    owners = {owner.manager: owned.paths for owner, owned in managed.read(live).items()}
    assert ("f:spec", "f:replicas") in owners["two"]
    assert ("f:spec", "f:replicas") not in owners.get("one", frozenset())
    assert live["spec"]["replicas"] == 2


def test_equal_values_are_shared_and_survive_one_owner_leaving() -> None:
    live = apply(EMPTY, config(1), "one")
    live = apply(live, config(1), "two")
    live = apply(live, config(None), "one")
    assert live["spec"]["replicas"] == 1
    live = apply(live, config(None), "two")
    assert "replicas" not in live["spec"]


def test_an_item_that_is_no_longer_applied_goes() -> None:
    live = apply(EMPTY, config(1, {"name": "a", "image": "x"}, {"name": "b", "image": "x"}), "one")
    live = apply(live, config(1, {"name": "b", "image": "x"}), "one")
    assert [item["name"] for item in live["spec"]["template"]["spec"]["containers"]] == ["b"]


def test_applying_again_changes_nothing() -> None:
    live = apply(EMPTY, config(1, {"name": "a", "image": "x"}), "one", now="t1")
    assert apply(live, config(1, {"name": "a", "image": "x"}), "one", now="t2") == live


def test_an_update_takes_ownership_from_an_applier() -> None:
    live = apply(EMPTY, config(1), "one")
    new = copy.deepcopy(live)
    new["spec"]["replicas"] = 5
    managed.track(SHAPE, live, new, "editor", "", "t2")
    with pytest.raises(ApiError, match=r'conflict with "editor" using apps/v1 at t2: \.spec\.replicas'):
        apply(new, config(1), "one")

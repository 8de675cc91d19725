"""Server-side apply: ownership, conflicts, giving up."""

import copy
import json

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


def managed_by(obj: Object) -> dict[str, str]:
    return {owner.manager: owner.operation for owner in managed.read(obj)}


def track(old: Object, new: Object, manager: str = "editor") -> Object:
    managed.track(SHAPE, old, new, manager, "", "t2")
    return new


@pytest.mark.parametrize("asked", [[], [{}]])
def test_owners_can_be_forgotten(asked: list[Object]) -> None:
    live = apply(EMPTY, config(1), "one")
    new = copy.deepcopy(live)
    new["metadata"]["managedFields"] = asked
    assert managed_by(track(live, new)) == {}


def test_owners_can_be_rewritten_and_nonsense_does_not_destroy_them() -> None:
    live = apply(EMPTY, config(1), "one")
    renamed, broken, silent = (copy.deepcopy(live) for _ in range(3))
    renamed["metadata"]["managedFields"][0]["manager"] = "two"
    broken["metadata"]["managedFields"] = [{"manager": "x", "operation": "Steal", "fieldsV1": {"f:spec": {}}}]
    del silent["metadata"]["managedFields"]
    assert managed_by(track(live, renamed)) == {"two": "Apply"}
    assert managed_by(track(live, broken)) == {"one": "Apply"}
    assert managed_by(track(live, silent)) == {"one": "Apply"}


def test_what_was_there_before_ownership_is_not_taken_silently() -> None:
    live = config(1)
    live["metadata"]["uid"] = "u"
    with pytest.raises(ApiError, match="before-first-apply"):
        apply(live, config(2), "one")


def client_side(replicas: int) -> Object:
    """An object as kubectl's client-side apply leaves it."""
    live = config(replicas)
    note = json.dumps({**EMPTY, "metadata": {"name": "d"}, "spec": {"replicas": replicas}})
    live["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": note}
    return track({**copy.deepcopy(EMPTY)}, live, "kubectl-client-side-apply")


def test_kubectl_goes_over_from_client_side_apply_without_conflict() -> None:
    live = apply(client_side(1), config(2), "kubectl")
    assert live["spec"]["replicas"] == 2
    note = live["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
    assert '"replicas":2' in note
    with pytest.raises(ApiError, match="kubectl-client-side-apply"):
        apply(client_side(1), config(2), "somebody-else")


def test_what_others_changed_since_kubectl_applied_stays_a_conflict() -> None:
    before = client_side(1)
    scaled = copy.deepcopy(before)
    scaled["spec"]["replicas"] = 5
    with pytest.raises(ApiError, match="autoscaler"):
        apply(track(before, scaled, "autoscaler"), config(2), "kubectl")

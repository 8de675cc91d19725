"""Patch engines against slow, obvious oracles."""

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.api import structure
from controller.api.fieldset import decode, encode
from controller.api.patch.json_patch import apply_json_patch
from controller.api.patch.merge import merge
from controller.api.patch.strategic import strategic_merge
from controller.kinds.schemas import Schemas

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab~/", max_size=3)
values = st.recursive(
    scalars, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text("xyz", max_size=2), below, max_size=3)
)
objects = st.dictionaries(st.text("xyz", max_size=2), values, max_size=4)
POD = Schemas.load().get("io.k8s.api.core.v1.Pod")


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(child) for key, child in value.items() if child is not None}
    return value


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A merge patch from old to new."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            patch[key] = difference(old[key], value)
        elif key not in old or old[key] != value or type(old[key]) is not type(value):
            patch[key] = value
    return patch


@given(objects, objects)
def test_a_merge_patch_made_from_a_difference_leads_there(old: dict[str, Any], new: dict[str, Any]) -> None:
    old, new = without_nulls(old), without_nulls(new)
    before = copy.deepcopy(old)
    assert merge(old, difference(old, new)) == new
    assert old == before


@given(objects, st.text("xyz", min_size=1, max_size=2), values)
def test_json_patch_add_then_remove_is_nothing(old: dict[str, Any], key: str, value: Any) -> None:
    old.pop(key, None)
    patch = [{"op": "add", "path": f"/{key}", "value": value}, {"op": "test", "path": f"/{key}", "value": value}]
    assert apply_json_patch(old, patch)[key] == value
    assert apply_json_patch(old, [*patch, {"op": "remove", "path": f"/{key}"}]) == old


containers = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"image": st.sampled_from(["i", "j"])}),
    max_size=3,
    unique_by=lambda item: item["name"],
)


@given(containers, containers)
def test_strategic_merge_of_keyed_lists_is_a_merge_by_name(live: list[Any], patch: list[Any]) -> None:
    made = strategic_merge({"spec": {"containers": live}}, {"spec": {"containers": patch}}, POD)
    found = {item["name"]: item for item in made["spec"]["containers"]}
    wanted = {item["name"]: dict(item) for item in live}
    for item in patch:
        wanted[item["name"]] = wanted.get(item["name"], {}) | item
    assert found == wanted
    assert len(made["spec"]["containers"]) == len(wanted)


@given(containers, containers, st.permutations(["a", "b", "c"]))
def test_element_order_is_obeyed(live: list[Any], patch: list[Any], order: list[str]) -> None:
    directive = [{"name": name} for name in order]
    made = strategic_merge(
        {"spec": {"containers": live}},
        {"spec": {"containers": patch, "$setElementOrder/containers": directive}},
        POD,
    )
    names = [item["name"] for item in made["spec"]["containers"]]
    assert names == [name for name in order if name in names]


@given(containers, containers)
def test_compare_of_a_merge_finds_exactly_what_was_merged(live: list[Any], config: list[Any]) -> None:
    old, wanted = {"spec": {"containers": live}}, {"spec": {"containers": config}}
    new = structure.merged(POD, old, wanted)
    found = structure.compare(POD, old, new)
    assert found.removed == set()
    assert found.changed <= structure.paths_of(POD, wanted) | {("f:spec", "f:containers")}
    assert structure.compare(POD, wanted, structure.merged(POD, new, wanted)).removed == set()


@given(containers)
def test_field_sets_survive_their_encoding(live: list[Any]) -> None:
    paths = structure.paths_of(POD, {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": live}})
    assert decode(encode(paths)) == paths

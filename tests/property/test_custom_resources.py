"""No definition and no object, however odd, makes custom resources fail in another way than by refusing."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds import custom_validation
from controller.kinds.custom_definition import CUSTOM_RESOURCE_DEFINITION
from controller.kinds.custom_kind import complete, kinds_of
from controller.kinds.custom_schema import fill, prune
from controller.kinds.kind import Object
from controller.kinds.schemas import Schemas

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.sampled_from(["", "a", "name"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "name"]), below, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean"])


def _schemas(below: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES,
            "properties": st.dictionaries(st.sampled_from(["a", "b", "name"]), below, max_size=3),
            "additionalProperties": below | st.booleans(),
            "items": below | JSON,
            "required": st.lists(st.sampled_from(["a", "name"]), max_size=2),
            "default": JSON,
            "nullable": st.booleans(),
            "enum": st.lists(JSON, max_size=2),
            "pattern": st.sampled_from(["^a$", "(", "[a-z]+"]),
            "format": st.sampled_from(["date-time", "int32", "ipv4", "uri", "duration", "cidr", "none"]),
            "minimum": st.integers(-3, 3),
            "maxItems": st.integers(0, 2),
            "multipleOf": st.sampled_from([0, 2, 0.5]),
            "anyOf": st.lists(below, max_size=2),
            "not": below,
            "x-kubernetes-list-type": st.sampled_from(["map", "set", "atomic"]),
            "x-kubernetes-list-map-keys": st.lists(st.sampled_from(["name", "zz"]), max_size=2),
            "x-kubernetes-int-or-string": st.booleans(),
            "x-kubernetes-preserve-unknown-fields": st.booleans(),
            "x-kubernetes-embedded-resource": st.booleans(),
        },
    )


SCHEMAS = st.recursive(st.fixed_dictionaries({"type": TYPES}), _schemas, max_leaves=6)


def definition(schema: Object) -> Object:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "things", "kind": "Thing"}
    made: Object = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com"},
        "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": [version]},
    }
    return made


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, JSON)
def test_definitions_are_accepted_or_refused_and_accepted_ones_judge_any_object(schema: Object, value: Any) -> None:
    made = definition(schema)
    schemas = Schemas.load()
    if schemas.check(CUSTOM_RESOURCE_DEFINITION.schema, made)[1]:
        return
    schemas.normalize(CUSTOM_RESOURCE_DEFINITION.schema, made)
    CUSTOM_RESOURCE_DEFINITION.default(made)
    CUSTOM_RESOURCE_DEFINITION.prepare_create(made)
    if CUSTOM_RESOURCE_DEFINITION.validate(made):
        return
    made["status"]["conditions"] = [{"type": "Established", "status": "True"}]
    [kind] = kinds_of(made)
    obj: Object = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "a": value, "b": value}
    assert kind.structure is not None
    kind.structure.check(obj)
    kind.structure.normalize(obj)
    kind.default(obj)
    kind.validate(obj)
    assert kind.structure.check(obj)[0] == []
    complete(kind, obj)
    assert not complete(kind, obj), "completing twice changes nothing"
    assert kind.structure.shape.field("a") is not None


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, JSON)
def test_pruning_and_filling_settle_at_once(schema: Object, value: Any) -> None:
    if CUSTOM_RESOURCE_DEFINITION.validate(definition({"type": "object", "properties": {"a": schema}})):
        return
    once = copy.deepcopy(value)
    prune(once, schema, [])
    fill(once, schema)
    again = copy.deepcopy(once)
    unknown: list[str] = []
    prune(again, schema, unknown)
    assert unknown == []
    assert not fill(again, schema)
    custom_validation.validate(once, schema, "f")

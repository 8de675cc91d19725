"""Custom resources: paths, pruning, defaults, validation, and what a definition makes. Pure."""

import copy
from typing import Any

import pytest

from controller.api.status import field_error_text
from controller.kinds import custom_validation
from controller.kinds.custom_definition import CUSTOM_RESOURCE_DEFINITION
from controller.kinds.custom_kind import complete, kinds_of
from controller.kinds.custom_schema import fill, prune
from controller.kinds.jsonpath import InvalidPath, compile_path
from controller.kinds.kind import Object

OBJECT = {"a": {"b.c": [{"n": 1, "t": "x"}, {"n": 2, "t": "y"}], "ok": True}, "none": None}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.ok", [True]),
        (".a.b\\.c[0].n", [1]),
        (".a['b.c'][-1].n", [2]),
        (".a['b.c'][*].n", [1, 2]),
        ('.a["b.c"][?(@.t=="y")].n', [2]),
        (".a['b.c'][5].n", []),
        (".none", []),
        (".missing.more", []),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert compile_path(path)(OBJECT) == found


@pytest.mark.parametrize("path", ["spec", ".a[", ".a[?(@.b)]", ".a..b"])
def test_malformed_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidPath):
        compile_path(path)


def an_object(**properties: Object) -> Object:
    return {"type": "object", "properties": properties}


def test_pruning_keeps_what_is_known_or_declared_free() -> None:
    schema = an_object(
        known=an_object(x={"type": "integer"}),
        free={"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"in": an_object()}},
        map={"type": "object", "additionalProperties": an_object(x={"type": "integer"})},
        embedded={"type": "object", "x-kubernetes-embedded-resource": True},
        list={"type": "array", "items": an_object(x={"type": "integer"})},
    )
    value = {
        "apiVersion": "v1",
        "kind": "K",
        "metadata": {"name": "n"},
        "known": {"x": 1, "y": 1},
        "free": {"y": 1, "in": {"y": 1}},
        "map": {"any": {"x": 1, "y": 1}},
        "embedded": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "nam": "n"}, "spec": {}},
        "list": [{"x": 1, "y": 1}],
        "extra": 1,
    }
    unknown: list[str] = []
    prune(value, schema, unknown, root=True)
    assert sorted(unknown) == [
        *("embedded.metadata.nam", "embedded.spec", "extra", "free.in.y", "known.y", "list[0].y", "map.any.y")
    ]
    assert value["embedded"]["metadata"] == {"name": "n"}
    assert value["free"] == {"y": 1, "in": {}}
    assert value["list"] == [{"x": 1}]


def test_defaults_fill_gaps_and_nulls_that_may_not_be() -> None:
    schema = an_object(
        a={"type": "integer", "default": 1},
        n={"type": "integer", "default": 1, "nullable": True},
        deep={"type": "object", "default": {}, "properties": {"b": {"type": "string", "default": "x"}}},
        list={"type": "array", "items": an_object(c={"type": "integer", "default": 2})},
    )
    value: Object = {"a": None, "n": None, "list": [{}]}
    assert fill(value, schema)
    assert value == {"a": 1, "n": None, "deep": {"b": "x"}, "list": [{"c": 2}]}
    assert not fill(value, schema)


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"type": "integer"}, "x", 'f: Invalid value: "string": f in body must be of type integer: "string"'),
        ({"type": "string"}, None, 'f: Invalid value: "null": f in body must be of type string: "null"'),
        ({"type": "integer"}, True, 'f: Invalid value: "boolean": f in body must be of type integer: "boolean"'),
        ({"type": "integer", "minimum": 1}, 0, "f: Invalid value: 0: f in body should be greater than or equal to 1"),
        ({"type": "string", "pattern": "^a$"}, "b", "f: Invalid value: \"b\": f in body should match '^a$'"),
        ({"type": "string", "pattern": "^a$"}, "a\n", "f: Invalid value: \"a\\n\": f in body should match '^a$'"),
        ({"type": "string", "maxLength": 1}, "ab", "f: Too long: may not be more than 1 bytes"),
        ({"type": "array", "maxItems": 1}, [1, 2], "f: Too many: 2: must have at most 1 items"),
        ({"type": "array", "x-kubernetes-list-type": "set"}, [1, 1], "f[1]: Duplicate value: 1"),
        ({"type": "object", "required": ["x"]}, {}, "f.x: Required value"),
        (
            {"type": "string", "format": "date-time"},
            "x",
            'f: Invalid value: "x": f in body must be of type date-time: "x"',
        ),
        ({"enum": ["a", "b"]}, "c", 'f: Unsupported value: "c": supported values: "a", "b"'),
        ({"not": {"enum": [1]}}, 1, 'f: Invalid value: "": "f" must not validate the schema (not)'),
        ({"anyOf": [{"minimum": 5}]}, 1, 'f: Invalid value: "": "f" must validate at least one schema (anyOf)'),
        (
            {"oneOf": [{"minimum": 5}]},
            1,
            'f: Invalid value: "": "f" must validate one and only one schema (oneOf). Found none valid',
        ),
        (
            {"x-kubernetes-int-or-string": True},
            [],
            'f: Invalid value: "array": f in body must be of type integer,string: "array"',
        ),
    ],
)
def test_values_are_judged_in_the_api_s_words(schema: Object, value: Any, said: str) -> None:
    assert [field_error_text(error) for error in custom_validation.validate(value, schema, "f")] == [said]


def definition(**spec: Any) -> Object:
    made: Object = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com", "generation": 1},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [version("v1", storage=True), version("v1alpha1"), version("v0", served=False)],
            **spec,
        },
    }
    CUSTOM_RESOURCE_DEFINITION.default(made)
    CUSTOM_RESOURCE_DEFINITION.prepare_create(made)
    made["status"]["conditions"] = [{"type": "Established", "status": "True"}]
    return made


def version(name: str, *, storage: bool = False, served: bool = True, **schema: Any) -> Object:
    return {
        "name": name,
        "served": served,
        "storage": storage,
        "schema": {"openAPIV3Schema": {"type": "object", **schema}},
    }


def test_a_definition_makes_a_kind_per_served_version() -> None:
    made = kinds_of(definition())
    assert [(kind.api_version, kind.stored and kind.stored.api_version) for kind in made] == [
        ("example.com/v1", None),
        ("example.com/v1alpha1", "example.com/v1"),
    ]
    assert (made[0].singular, made[0].kind_of_list, made[0].namespaced) == ("thing", "ThingList", False)
    waiting = definition()
    waiting["status"]["conditions"] = []
    assert kinds_of(waiting) == []


def test_what_is_stored_in_another_version_is_brought_up_to_date() -> None:
    schema = {"properties": {"spec": {"type": "object", "default": {"a": 1}, "properties": {"a": {"type": "integer"}}}}}
    kind = kinds_of(definition(versions=[version("v2", storage=True, **schema)]))[0]
    stored: Object = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}}
    assert complete(kind, stored)
    assert stored == {
        "apiVersion": "example.com/v2",
        "kind": "Thing",
        "spec": {"a": 1},
        "metadata": {"name": "x"},
    }
    assert not complete(kind, stored)


def test_a_version_without_a_name_is_refused_not_failed_on() -> None:
    made = definition(versions=[{"storage": True, "served": True, "schema": {"openAPIV3Schema": {"type": "object"}}}])
    CUSTOM_RESOURCE_DEFINITION.prepare_create(made)
    assert "spec.versions[0].name" in [error.path for error in CUSTOM_RESOURCE_DEFINITION.validate(made)]


def test_storage_versions_are_remembered_and_may_not_vanish() -> None:
    old = definition()
    assert old["status"]["storedVersions"] == ["v1"]
    new = copy.deepcopy(old)
    new["spec"]["versions"] = [version("v2", storage=True)]
    CUSTOM_RESOURCE_DEFINITION.prepare_update(new, old)
    assert new["status"]["storedVersions"] == ["v1", "v2"]
    assert [error.path for error in CUSTOM_RESOURCE_DEFINITION.validate(new)] == ["status.storedVersions[0]"]


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": {"a": {"type": "array"}}}, "properties[a].items"),
        ({"properties": {"a": {"type": "array", "items": [1]}}}, "properties[a]"),
        ({"properties": {"a": {"type": "object", "additionalProperties": 1}}}, "properties[a]"),
        ({"properties": {"a": {"type": "object", "additionalProperties": {"properties": 7}}}}, "additionalProperties"),
        ({"properties": {"a": {"description": "x"}}}, "properties[a].type"),
        ({"properties": {"a": {"type": "file"}}}, "properties[a].type"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "properties[a].pattern"),
        ({"properties": {"a": {"type": "string", "default": 1}}}, "properties[a].default"),
        ({"properties": {"metadata": {"type": "object", "required": ["x"]}}}, "properties[metadata]"),
        ({"x-kubernetes-validations": [{"rule": "self.a >"}]}, "x-kubernetes-validations[0].rule"),
    ],
)
def test_schemas_must_be_structural(schema: Object, path: str) -> None:
    found = CUSTOM_RESOURCE_DEFINITION.validate(definition(versions=[version("v1", storage=True, **schema)]))
    assert [error.path.removeprefix("spec.versions[0].schema.openAPIV3Schema.") for error in found][:1] != []
    assert found[0].path.endswith(path)

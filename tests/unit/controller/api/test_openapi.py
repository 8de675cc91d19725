"""Clients fetch a group's document again when its kinds change, and no other group's."""

from dataclasses import replace

from controller.api.openapi import OpenApi
from controller.api.openapi_older import older
from controller.kinds.custom_schema import PRESERVE
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.registry import REGISTRY


def test_a_new_kind_changes_the_documents_that_it_is_in() -> None:
    kinds = REGISTRY.fork()
    documents = OpenApi(kinds.all)
    before = {path: documents.etag(path) for path in ("api/v1", "apis/apps/v1", "v2")}
    deployment = kinds.by_key(ResourceKey("apps", "deployments"))
    kinds.add(replace(deployment, kind="Widget", plural="widgets", definitions_digest="one"))
    after = {path: documents.etag(path) for path in before}
    assert [path for path in before if before[path] != after[path]] == ["apis/apps/v1", "v2"]


def test_v2_names_nothing_where_everything_is_allowed() -> None:
    open_ended: Object = {"type": "object", "properties": {"a": {"type": "string"}}, PRESERVE: True}
    assert older(open_ended) == {"type": "object"}
    nested: Object = {
        "type": "object",
        "required": ["free", "maybe"],
        "properties": {
            "free": open_ended,
            "maybe": {"type": "string", "nullable": True, "description": "d"},
            "either": {"type": "integer", "minimum": 1, "anyOf": [{"minimum": 2}]},
        },
    }
    assert older(nested) == {
        "type": "object",
        "required": ["free"],
        "properties": {
            "free": {PRESERVE: True},
            "maybe": {"description": "d"},
            "either": {"type": "integer", "minimum": 1},
        },
    }

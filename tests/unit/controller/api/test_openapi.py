"""Clients fetch a group's document again when its kinds change, and no other group's."""

from dataclasses import replace

from controller.api.openapi import OpenApi
from controller.kinds.kind import ResourceKey
from controller.kinds.registry import REGISTRY


def test_a_new_kind_changes_the_documents_that_it_is_in() -> None:
    kinds = REGISTRY.fork()
    documents = OpenApi(kinds.all)
    before = {path: documents.etag(path) for path in ("api/v1", "apis/apps/v1", "v2")}
    deployment = kinds.by_key(ResourceKey("apps", "deployments"))
    kinds.add(replace(deployment, kind="Widget", plural="widgets", definitions_digest="one"))
    after = {path: documents.etag(path) for path in before}
    assert [path for path in before if before[path] != after[path]] == ["apis/apps/v1", "v2"]

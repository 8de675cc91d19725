"""The OpenAPI v2 document as protobuf, read back field by field."""

from typing import Any

import orjson

from controller.api import openapi_wire
from controller.api.openapi import OpenApi
from controller.api.protobuf_body import fields
from controller.kinds.registry import REGISTRY


def texts(message: bytes, number: int) -> list[bytes]:
    return [bytes(value) for found, value in fields(message) if found == number]  # type: ignore[arg-type]


def named(message: bytes, number: int) -> dict[str, bytes]:
    """Entries of a map field."""
    return {texts(each, 1)[0].decode(): texts(each, 2)[0] for each in texts(message, number)}


def extensions(message: bytes, number: int) -> dict[str, Any]:
    return {name: orjson.loads(texts(value, 2)[0]) for name, value in named(message, number).items()}


def test_everything_clients_act_on_is_there() -> None:
    document = OpenApi(REGISTRY.all).document_v2()
    wire = openapi_wire.encode(document)
    definitions = named(texts(wire, 9)[0], 1)
    assert definitions.keys() == document["definitions"].keys()
    pod_spec = definitions["io.k8s.api.core.v1.PodSpec"]
    assert texts(pod_spec, 19) == [b"containers"]
    properties = named(texts(pod_spec, 25)[0], 1)
    assert properties.keys() == document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"].keys()
    containers = properties["containers"]
    assert texts(texts(containers, 22)[0], 1) == [b"array"]
    item = texts(texts(containers, 23)[0], 1)[0]
    assert texts(item, 1) == [b"#/definitions/io.k8s.api.core.v1.Container"]
    assert extensions(containers, 31)["x-kubernetes-patch-merge-key"] == "name"
    selector = texts(texts(properties["nodeSelector"], 21)[0], 1)[0]
    assert texts(texts(selector, 22)[0], 1) == [b"string"]


def test_patches_say_that_they_can_be_tried() -> None:
    wire = openapi_wire.encode(OpenApi(REGISTRY.all).document_v2())
    patch = texts(named(texts(wire, 8)[0], 2)["/api/v1/namespaces/{namespace}/pods/{name}"], 8)[0]
    assert extensions(patch, 13)["x-kubernetes-group-version-kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    names = []
    for parameter in texts(patch, 8):
        query = texts(texts(texts(parameter, 1)[0], 2)[0], 3)[0]
        names += texts(query, 4)
    assert b"dryRun" in names

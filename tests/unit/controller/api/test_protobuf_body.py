"""Protobuf bodies: a message built by hand decodes; broken and unknown ones are refused politely."""

import pytest

from controller.api import protobuf_body
from controller.api.status import ApiError
from controller.api.wire_numbers import numbers
from controller.kinds.registry import REGISTRY
from controller.kinds.schemas import Schemas


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + bytes([value])
    return bytes([number << 3 | 2, len(value)]) + value


def wide(number: int, value: bytes) -> bytes:
    """A field whose number needs two bytes."""
    tag = number << 3 | 2
    return bytes([tag & 0x7F | 0x80, tag >> 7, len(value)]) + value


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    meta = field(1, api_version.encode()) + field(2, kind.encode())
    return protobuf_body.MAGIC + field(1, meta) + field(2, raw)


def test_config_map() -> None:
    metadata = field(1, b"a") + field(2, b"") + field(8, b"")
    raw = field(1, metadata) + field(2, field(1, b"k") + field(2, b"v"))
    assert protobuf_body.decode(envelope("v1", "ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "a"},
        "data": {"k": "v"},
    }


def test_embedded_messages_and_int_or_string() -> None:
    port = field(3, 80) + field(4, field(1, 1) + field(3, b"http"))
    made = protobuf_body.decode(envelope("v1", "Service", field(2, field(1, port))))
    assert made["spec"] == {"ports": [{"port": 80, "targetPort": "http"}]}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", 400),
        (protobuf_body.MAGIC + b"\xff", 400),
        (envelope("v1", "ConfigMap", b"\x0a\xff"), 400),
        (envelope("v1", "Nonsense", b""), 415),
    ],
)
def test_refusals(body: bytes, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        protobuf_body.decode(body)
    assert caught.value.code == code


def test_every_numbered_field_is_in_the_schemas() -> None:
    schemas = Schemas.load()
    missing = [
        f"{definition}.{field.name}"
        for definition, known in numbers().items()
        for field in known.values()
        if not field.name.startswith("@") and definition in schemas and field.name not in schemas.get(definition).fields
    ]
    assert missing == []


def test_whatever_a_numbered_field_holds_is_numbered_too() -> None:
    schemas = Schemas.load()
    missing = set()
    for definition, known in numbers().items():
        for field in known.values():
            shape = schemas.get(definition).field(field.name) if definition in schemas else schemas.any
            while shape.type in ("array", "map"):
                shape = shape.item
            if shape.type == "object" and shape.definition and not field.name.startswith("@"):
                missing |= {shape.definition} - numbers().keys()
    assert not {each for each in missing if not each.startswith("io.sphere.")}


def test_every_kind_of_kubernetes_can_be_sent() -> None:
    theirs = ("io.k8s.api.", "io.k8s.apiextensions-apiserver.")
    kinds = {kind.schema for kind in REGISTRY.all() if kind.schema.startswith(theirs)}
    assert len(kinds) > 50
    assert kinds - numbers().keys() == set()


def test_zeros_that_json_leaves_out_and_fields_of_newer_clients() -> None:
    spec = field(1, 0) + field(9, 0) + field(15, b"new")
    made = protobuf_body.decode(envelope("apps/v1", "StatefulSet", field(2, spec)))
    assert made["spec"] == {"replicas": 0}
    assert protobuf_body.decode(envelope("v1", "ConfigMap", field(15, b"new"))) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
    }


def test_a_schema_or_a_boolean() -> None:
    below = field(5, b"string")
    schema = field(5, b"object") + wide(30, field(1, 1) + field(2, below))
    version = field(4, field(1, schema))
    made = protobuf_body.decode(
        envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version)))
    )
    [found] = made["spec"]["versions"]
    assert found["schema"]["openAPIV3Schema"] == {"type": "object", "additionalProperties": {"type": "string"}}

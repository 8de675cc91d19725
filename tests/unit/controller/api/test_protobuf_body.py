"""Protobuf bodies: a message built by hand decodes; broken and unknown ones are refused politely."""

import pytest

from controller.api import protobuf_body
from controller.api.status import ApiError
from controller.api.wire_numbers import NUMBERS
from controller.kinds.schemas import Schemas


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return bytes([number << 3]) + bytes([value])
    return bytes([number << 3 | 2, len(value)]) + value


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
        (envelope("v1", "ConfigMap", field(15, b"x")), 415),
    ],
)
def test_refusals(body: bytes, code: int) -> None:
    with pytest.raises(ApiError) as caught:
        protobuf_body.decode(body)
    assert caught.value.code == code


def test_every_numbered_field_is_in_the_schemas() -> None:
    schemas = Schemas.load()
    missing = [
        f"{definition}.{name}"
        for definition, numbers in NUMBERS.items()
        for name in numbers.values()
        if not name.startswith("@") and definition in schemas and name not in schemas.get(definition).fields
    ]
    assert missing == []

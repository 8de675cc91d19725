"""Request bodies in ``application/vnd.kubernetes.protobuf``, which Go clients since 1.32 send for built-in kinds. Pure.

The answer is always JSON: those clients accept both. Types come from the schemas, field numbers from ``wire_numbers``.
Spec: apimachinery ``runtime.Unknown`` behind the magic ``k8s\\0``; protocol buffers encoding (varint, 64-bit, bytes).
"""

import base64
import struct
from collections.abc import Iterator
from typing import Any, Final

import orjson

from common.clock import rfc3339, rfc3339_micro
from controller.api.status import ApiError, bad_request, unsupported_media
from controller.api.wire_numbers import WireField, numbers
from controller.kinds.kind import Object
from controller.kinds.schemas import Schemas, Shape

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"
DEPTH_MAX: Final = 32
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_CRD: Final = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_JSON_SCHEMA: Final = f"{_CRD}JSONSchemaProps"
_SCHEMA_OR: Final = {f"{_CRD}JSONSchemaPropsOrBool": 2, f"{_CRD}JSONSchemaPropsOrArray": 1}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Value = int | bytes


class Malformed(Exception):
    """Not a protocol buffer message."""


def decode(body: bytes) -> Object:
    """The object in a body. Raises ``ApiError`` 400 for broken bytes, 415 for a kind whose numbers are not known."""
    if not body.startswith(MAGIC):
        raise bad_request("the body does not start with the protobuf magic number 6b 38 73 00")
    try:
        envelope = dict(fields(body[len(MAGIC) :]))
        meta = dict(fields(_message(envelope.get(1, b""))))
        api_version, kind = _text(meta.get(1, b"")), _text(meta.get(2, b""))
        definition = _definition(api_version, kind)
        decoded = _object(Schemas.load().get(definition), definition, _message(envelope.get(2, b"")), 0)
    except (Malformed, ValueError, struct.error, OverflowError, OSError) as err:
        raise bad_request(f"the body cannot be decoded as protobuf: {err}") from err
    return {"apiVersion": api_version, "kind": kind, **decoded}


def _definition(api_version: str, kind: str) -> str:
    group, _, version = api_version.rpartition("/")
    name = f"{_META}DeleteOptions" if kind == "DeleteOptions" else Schemas.load().by_kind(group, version, kind)
    if name is None or name not in numbers():
        raise _unknown(f"{kind} in {api_version}")
    return name


def _unknown(what: str) -> ApiError:
    return unsupported_media(f"{what} is not understood as protobuf by this server: send application/json")


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(number, value) pairs of one message. Raises ``Malformed``."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise Malformed("field number 0")
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        size = 8 if wire == _FIXED64 else 4
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire not in (_FIXED64, _FIXED32):
            raise Malformed(f"wire type {wire}")
        if at + size > end:
            raise Malformed("the message ends too early")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Malformed("broken varint")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7


def _message(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise Malformed("a number where a message belongs")
    return value


def _number(value: Value) -> int:
    if not isinstance(value, int):
        raise Malformed("bytes where a number belongs")
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(value: Value) -> str:
    return _message(value).decode()


def _object(shape: Shape, definition: str, data: bytes, depth: int) -> Object:
    if depth > DEPTH_MAX:
        raise Malformed("nested too deep")
    known = numbers().get(definition)
    if known is None:
        raise _unknown(definition.rpartition(".")[2])
    found: Object = {}
    for number, value in fields(data):
        field = known.get(number)
        if field is None:
            continue  # of a newer client: as unknown to Go's decoder
        if field.name.startswith("@"):
            # The embedded message's fields are the outer one's, which is why the schemas have them there.
            inner = f"{definition.rpartition('.')[0]}.{field.name[1:]}"
            found.update(_object(shape, inner, _message(value), depth + 1))
        else:
            _set(found, field, shape.field(field.name), value, depth)
    return found


def _set(found: Object, field: WireField, shape: Shape, value: Value, depth: int) -> None:
    name = field.name
    match shape.type:
        case "array":
            listed = found.setdefault(name, [])
            if shape.item.type == "integer" and isinstance(value, bytes):
                at = 0
                while at < len(value):
                    number, at = _varint(value, at)
                    listed.append(_number(number))
            else:
                listed.append(_value(shape.item, value, depth))
        case "map":
            entry = dict(fields(_message(value)))
            found.setdefault(name, {})[_text(entry.get(1, b""))] = _map_value(shape.item, entry.get(2, b""), depth)
        case _:
            decoded = _value(shape, value, depth)
            # Go sends zero values that JSON would have left out.
            is_zero = decoded in ("", None) or (field.plain and not decoded)
            if not is_zero:
                found[name] = decoded


def _map_value(shape: Shape, value: Value, depth: int) -> Any:
    if shape.type == "array":
        return [_value(shape.item, item, depth) for _, item in fields(_message(value))]
    return _value(shape, value, depth)


def _value(shape: Shape, value: Value, depth: int) -> Any:
    match shape.type:
        case "object":
            return _object(shape, shape.definition, _message(value), depth + 1)
        case "string":
            raw = _message(value)
            return base64.b64encode(raw).decode() if shape.format == "byte" else raw.decode()
        case "integer":
            return _number(value)
        case "boolean":
            return bool(_number(value))
        case "number":
            return struct.unpack("<d", _message(value))[0]
        case "quantity":
            return _text(dict(fields(_message(value))).get(1, b"")) or "0"
        case "int-or-string":
            parts = dict(fields(_message(value)))
            return _text(parts.get(3, b"")) if parts.get(1) == 1 else _number(parts.get(2, 0))
        case "time":
            return _time(shape, dict(fields(_message(value))))
        case "any" if shape.definition in _SCHEMA_OR:
            return _schema_or(shape.definition, dict(fields(_message(value))), depth)
        case "any":
            raw = _message(dict(fields(_message(value))).get(1, b""))
            return orjson.loads(raw) if raw else None
        case other:
            raise Malformed(f"no decoding of {other}")


def _schema_or(definition: str, parts: dict[int, Value], depth: int) -> Any:
    """What is either a JSON schema or something else: which number holds it depends."""
    at = _SCHEMA_OR[definition]
    if parts.get(at):
        return _object(Schemas.load().get(_JSON_SCHEMA), _JSON_SCHEMA, _message(parts[at]), depth + 1)
    return bool(_number(parts.get(1, 0))) if definition.endswith("OrBool") else None


def _time(shape: Shape, parts: dict[int, Value]) -> str | None:
    if not parts:
        return None
    seconds, nanos = _number(parts.get(1, 0)), _number(parts.get(2, 0))
    if shape.definition.endswith("MicroTime"):
        return rfc3339_micro(seconds + nanos / 1e9)
    return rfc3339(seconds)

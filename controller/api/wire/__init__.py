"""Kubernetes protobuf request bodies, decoded to the JSON form of the same object. Pure.

Typed Go clients (``kubectl create namespace``) send ``application/vnd.kubernetes.protobuf`` and do not fall back. Field
numbers are the published interface; ``fields.json`` has them, ``generate.py`` makes it. Answers stay JSON.
Spec: apimachinery ``runtime/serializer/protobuf``: ``k8s\\0`` and a ``runtime.Unknown``.
"""

import base64
import struct
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any, Final

import orjson

from controller.kinds.kind import Object

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"
DEPTH_MAX: Final = 64
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
_TIME: Final = (_META + "Time", _META + "MicroTime")
_QUANTITY: Final = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING: Final = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_RAW: Final = ("io.k8s.apimachinery.pkg.runtime.RawExtension", _META + "FieldsV1")
_DURATION: Final = _META + "Duration"
_MASK: Final = (1 << 64) - 1


class InvalidWire(ValueError):
    """The bytes are no protobuf of a known object."""


@cache
def _table() -> tuple[dict[str, str], dict[str, dict[int, tuple[str, str, str]]]]:
    raw = orjson.loads(resources.files(__name__).joinpath("fields.json").read_bytes())
    messages = {
        name: {int(number): (entry[0], entry[1], entry[2]) for number, entry in fields.items()}
        for name, fields in raw["messages"].items()
    }
    return raw["groups"], messages


def decode(body: bytes) -> Object:
    """The object in ``body``, apiVersion and kind included. Raises ``InvalidWire``."""
    if not body.startswith(MAGIC):
        raise InvalidWire("the body does not start with the protobuf serialization's prefix")
    try:
        unknown = dict(_fields(body[len(MAGIC) :]))
        meta = dict(_fields(_bytes(unknown.get(1, b""))))
        version, kind = _bytes(meta.get(1, b"")).decode(), _bytes(meta.get(2, b"")).decode()
        groups, messages = _table()
        name = groups.get(version, "?") + kind
        if name not in messages:
            name = _META + kind
        if name not in messages:
            raise InvalidWire(f"no kind {kind!r} is registered for version {version!r}")
        obj = _message(name, _bytes(unknown.get(2, b"")), 0)
    except (IndexError, struct.error, ValueError, OverflowError) as err:
        raise err if isinstance(err, InvalidWire) else InvalidWire(f"malformed protobuf: {err}") from err
    if not isinstance(obj, dict):
        raise InvalidWire(f"{kind} is no object")
    return {"apiVersion": version, "kind": kind, **obj}


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise InvalidWire("a number where a message should be")
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
        if shift > 63:
            raise InvalidWire("a number is longer than ten bytes")


def _fields(data: bytes) -> list[tuple[int, int | bytes]]:
    """(number, raw value) in wire order."""
    found: list[tuple[int, int | bytes]] = []
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = data[at : at + size], at + size
        elif kind == 2:
            size, at = _varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise InvalidWire(f"wire type {kind} is not supported")
        if at > end:
            raise InvalidWire("the message is cut off")
        found.append((tag >> 3, value))
    return found


def _message(name: str, data: bytes, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise InvalidWire("messages are nested too deeply")
    special = _special(name, data)
    if special is not None:
        return special[0]
    made: Object = {}
    schema = _table()[1].get(name)
    if schema is None:
        raise InvalidWire(f"message {name} is not known")
    for number, raw in _fields(data):
        entry = schema.get(number)
        if entry is None:
            continue
        json_name, kind, flags = entry
        if kind.startswith("map:"):
            key, value = _map_entry(kind[4:], _bytes(raw), depth)
            made.setdefault(json_name, {})[key] = value
            continue
        value = _value(kind, raw, depth)
        if "r" in flags:
            made.setdefault(json_name, []).append(value)
        elif not json_name:
            # An embedded struct: its fields stand beside the others.
            made.update(value)
        elif not _is_absent(kind, value, flags):
            made[json_name] = value
    return made


def _is_absent(kind: str, value: Any, flags: str) -> bool:
    """Go writes every plain field, set or not; only pointers tell the two apart."""
    if value is None:
        return True
    return "p" not in flags and (value in ("", 0, False) or (value == {} and "o" in flags)) and kind != "b"


def _map_entry(kind: str, data: bytes, depth: int) -> tuple[str, Any]:
    raw = dict(_fields(data))
    default: int | bytes = 0 if kind in ("i", "?") else b""
    return _bytes(raw.get(1, b"")).decode(), _value(kind, raw.get(2, default), depth)


def _value(kind: str, raw: int | bytes, depth: int) -> Any:
    match kind:
        case "s":
            return _bytes(raw).decode()
        case "b":
            return base64.b64encode(_bytes(raw)).decode()
        case "i":
            number = raw if isinstance(raw, int) else int.from_bytes(raw, "little")
            return number - (1 << 64) if number >> 63 else number
        case "?":
            return bool(raw)
        case "d":
            return struct.unpack("<d", _bytes(raw))[0]
        case "list":
            return [_bytes(item).decode() for number, item in _fields(_bytes(raw)) if number == 1]
        case _:
            return _message(kind, _bytes(raw), depth + 1)


def _special(name: str, data: bytes) -> tuple[Any] | None:
    """Messages whose JSON is not an object; a one-tuple, so that None can be a value."""
    if name in _TIME:
        return (_time(data, micro=name.endswith("MicroTime")),)
    if name == _QUANTITY:
        return (_bytes(dict(_fields(data)).get(1, b"")).decode() or None,)
    if name == _INT_OR_STRING:
        found = dict(_fields(data))
        if found.get(1, 0) == 1:
            return (_bytes(found.get(3, b"")).decode(),)
        return (_value("i", found.get(2, 0), 0),)
    if name in _RAW:
        text = _bytes(dict(_fields(data)).get(1, b""))
        return (orjson.loads(text) if text else None,)
    if name == _DURATION:
        seconds = _value("i", dict(_fields(data)).get(1, 0), 0) / 1e9
        return (f"{seconds:g}s",)
    return None


def _time(data: bytes, *, micro: bool) -> str | None:
    found = dict(_fields(data))
    seconds = _value("i", found.get(1, 0), 0)
    if not found or seconds <= -62135596800:
        return None
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ"
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.replace(microsecond=_value("i", found.get(2, 0), 0) // 1000).strftime(form)

"""The OpenAPI v2 document as protobuf (``openapi.v2.Document``), which is how kubectl before 1.27 reads it. Pure.

Written are the parts that clients act on: definitions (validation, ``explain``, merge keys) and, of the paths, the
methods with their kinds and query parameters (whether a kind can be tried with ``dryRun``).

Spec: gnostic ``openapiv2/OpenAPIv2.proto``; the numbers below are its field numbers.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

import orjson

from controller.kinds.kind import Object

_METHODS: Final = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}


def encode(document: Object) -> bytes:
    """Encode a document with ``swagger``, ``info``, ``paths`` and ``definitions``."""
    info = document["info"]
    paths = (_field(2, _named(path, _path_item(item))) for path, item in document["paths"].items())
    definitions = (_field(1, _named(name, _schema(each))) for name, each in document["definitions"].items())
    return b"".join(
        (
            _text(1, document["swagger"]),
            _field(2, _text(1, info["title"]) + _text(2, info["version"])),
            _field(8, b"".join(paths)),
            _field(9, b"".join(definitions)),
        )
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode()) if text else b""


def _texts(number: int, texts: Iterable[str]) -> bytes:
    return b"".join(_field(number, text.encode()) for text in texts)


def _named(name: str, value: bytes) -> bytes:
    """An entry of any of the maps."""
    return _text(1, name) + _field(2, value)


def _extensions(number: int, holder: Object) -> Iterator[bytes]:
    """``x-...`` members, as YAML text; JSON is YAML."""
    for name, value in holder.items():
        if name.startswith("x-"):
            yield _field(number, _named(name, _field(2, orjson.dumps(value))))


def _path_item(item: Object) -> bytes:
    return b"".join(_field(number, _operation(item[method])) for method, number in _METHODS.items() if method in item)


def _operation(operation: Object) -> bytes:
    query = (each["name"] for each in operation.get("parameters", ()) if each["in"] == "query")
    return b"".join((_text(5, operation["operationId"]), *map(_query_parameter, query), *_extensions(13, operation)))


def _query_parameter(name: str) -> bytes:
    """``ParametersItem`` > ``Parameter`` > ``NonBodyParameter`` > ``QueryParameterSubSchema``."""
    return _field(8, _field(1, _field(2, _field(3, _text(2, "query") + _text(4, name)))))


def _schema(schema: Object) -> bytes:
    kind: Any = schema.get("type", ())
    properties = (_field(1, _named(name, _schema(each))) for name, each in schema.get("properties", {}).items())
    parts = [
        _text(1, schema.get("$ref", "")),
        _text(2, schema.get("format", "")),
        _text(4, schema.get("description", "")),
        _texts(19, schema.get("required", ())),
    ]
    if isinstance(more := schema.get("additionalProperties"), dict):
        parts.append(_field(21, _field(1, _schema(more))))
    if kind:
        parts.append(_field(22, _texts(1, (kind,) if isinstance(kind, str) else kind)))
    if isinstance(items := schema.get("items"), dict):
        parts.append(_field(23, _field(1, _schema(items))))
    if "properties" in schema:
        parts.append(_field(25, b"".join(properties)))
    return b"".join((*parts, *_extensions(31, schema)))

"""Values of custom resources against their OpenAPI v3 schema, in the API's words. Pure.

Spec: kube-openapi ``pkg/validation/validate``, apiextensions ``pkg/apiserver/validation``.
"""

import base64
import binascii
import ipaddress
import re
import uuid
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from common.clock import parse_rfc3339
from controller.kinds.custom_schema import EMBEDDED, INT_OR_STRING
from controller.kinds.kind import FieldError, Object
from controller.kinds.rules import Errors, duplicate, invalid, required

ERRORS_MAX: Final = 100
_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: (
        (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())
    ),
}
_NAMES: Final = {str: "string", bool: "boolean", int: "integer", float: "number", dict: "object", list: "array"}


def validate(value: Any, schema: Object, path: str = "") -> Errors:
    """Everything wrong with ``value``. ``path`` is empty for the object itself."""
    errors: Errors = []
    _validate(value, schema, path, errors)
    return errors[:ERRORS_MAX]


def _body(path: str, text: str) -> str:
    return f"{path} in body {text}" if path else f"in body {text}"


def _wrong(path: str, value: Any, text: str) -> FieldError:
    return invalid(path or "<nil>", value, _body(path, text))


def _validate(value: Any, schema: Object, path: str, errors: Errors) -> None:
    if value is None:
        if not schema.get("nullable") and schema.get("type"):
            errors.append(_type_error(path, "null", schema["type"]))
        return
    if not _has_type(value, schema, path, errors):
        return
    _enumeration(value, schema, path, errors)
    if isinstance(value, str):
        _string(value, schema, path, errors)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, schema, path, errors)
    elif isinstance(value, list):
        _array(value, schema, path, errors)
    elif isinstance(value, dict):
        _object(value, schema, path, errors)
    _combined(value, schema, path, errors)


def _type_error(path: str, have: str, want: str) -> FieldError:
    detail = _body(path, f'must be of type {want}: "{have}"')
    return FieldError("FieldValueTypeInvalid", path or "<nil>", detail, have)


def _has_type(value: Any, schema: Object, path: str, errors: Errors) -> bool:
    if schema.get(INT_OR_STRING):
        good = isinstance(value, str) or _TYPES["integer"](value)
        want = "integer,string"
    else:
        want = schema.get("type") or ""
        good = not want or _TYPES.get(want, lambda _: True)(value)
    if not good:
        errors.append(_type_error(path, _NAMES.get(type(value), "null"), want))
    return good


def _enumeration(value: Any, schema: Object, path: str, errors: Errors) -> None:
    allowed = schema.get("enum")
    if allowed and not any(value == each and type(value) is type(each) for each in allowed):
        listed = ", ".join(orjson.dumps(each).decode() for each in allowed)
        errors.append(FieldError("FieldValueNotSupported", path, f"supported values: {listed}", value))


def _string(value: str, schema: Object, path: str, errors: Errors) -> None:
    longest, shortest = schema.get("maxLength"), schema.get("minLength")
    if longest is not None and len(value) > longest:
        errors.append(FieldError("FieldValueTooLong", path, f"may not be more than {longest} bytes", value))
    if shortest is not None and len(value) < shortest:
        errors.append(_wrong(path, value, f"should be at least {shortest} chars long"))
    pattern = schema.get("pattern")
    if pattern and not _fits(pattern, value):
        errors.append(_wrong(path, value, f"should match '{pattern}'"))
    known = _FORMATS.get(schema.get("format") or "")
    if known is not None and not known(value):
        errors.append(_wrong(path, value, f'must be of type {schema["format"]}: "{value}"'))


def _fits(pattern: str, value: str) -> bool:
    try:
        return compiled(pattern).search(value) is not None
    except re.error:
        return True  # a definition with it is refused for it


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of a schema. Raises ``re.error``. ``$`` means the very end, as in Go."""
    return re.compile(re.sub(r"(?<!\\)\$$", r"\\Z", pattern).replace(r"\z", r"\Z"))


def _number(value: float, schema: Object, path: str, errors: Errors) -> None:
    highest, lowest, step = schema.get("maximum"), schema.get("minimum"), schema.get("multipleOf")
    if highest is not None:
        if schema.get("exclusiveMaximum") and value >= highest:
            errors.append(_wrong(path, value, f"should be less than {highest}"))
        elif value > highest:
            errors.append(_wrong(path, value, f"should be less than or equal to {highest}"))
    if lowest is not None:
        if schema.get("exclusiveMinimum") and value <= lowest:
            errors.append(_wrong(path, value, f"should be greater than {lowest}"))
        elif value < lowest:
            errors.append(_wrong(path, value, f"should be greater than or equal to {lowest}"))
    if step and abs(value / step - round(value / step)) > 1e-9:
        errors.append(_wrong(path, value, f"should be a multiple of {step}"))
    bits = {"int32": 31, "int64": 63}.get(schema.get("format") or "")
    if bits and not -(2**bits) <= value < 2**bits:
        errors.append(_wrong(path, value, f"must be of type {schema['format']}"))


def _too_many(path: str, have: int, most: int, what: str) -> FieldError:
    return FieldError("FieldValueTooMany", path, f"must have at most {most} {what}", have)


def _array(value: list[Any], schema: Object, path: str, errors: Errors) -> None:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        errors.append(_too_many(path, len(value), most, "items"))
    if least is not None and len(value) < least:
        errors.append(_wrong(path, len(value), f"should have at least {least} items"))
    items = schema.get("items")
    if isinstance(items, dict):
        for index, child in enumerate(value):
            _validate(child, items, f"{path}[{index}]", errors)
            if len(errors) > ERRORS_MAX:
                return
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    kind = schema.get("x-kubernetes-list-type")
    if kind in ("set", "map"):
        seen: set[bytes] = set()
        for index, child in enumerate(value):
            shown = {key: child.get(key) for key in keys} if kind == "map" and isinstance(child, dict) else child
            mark = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS)
            if mark in seen:
                errors.append(duplicate(f"{path}[{index}]", shown))
            seen.add(mark)


def _object(value: Object, schema: Object, path: str, errors: Errors) -> None:
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        errors.append(_too_many(path, len(value), most, "items"))
    if least is not None and len(value) < least:
        errors.append(_wrong(path, len(value), f"should have at least {least} properties"))
    for name in schema.get("required") or ():
        if name not in value:
            errors.append(required(_under(path, name)))
    properties: Object = schema.get("properties") or {}
    more = schema.get("additionalProperties")
    for name, child in value.items():
        if len(errors) > ERRORS_MAX:
            return
        if not path and name == "metadata":
            continue  # has a schema of its own, whatever this one says
        if name in properties:
            _validate(child, properties[name], _under(path, name), errors)
        elif isinstance(more, dict):
            _validate(child, more, _under(path, name), errors)
    if schema.get(EMBEDDED):
        for name in ("apiVersion", "kind"):
            if not isinstance(value.get(name), str) or not value[name]:
                errors.append(required(_under(path, name), "must not be empty"))


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _holds(value: Any, schema: Object, path: str) -> bool:
    return not validate(value, schema, path)


def _combined(value: Any, schema: Object, path: str, errors: Errors) -> None:
    quoted = f'"{path}"'
    for below in schema.get("allOf") or ():
        before = len(errors)
        _validate(value, below, path, errors)
        if len(errors) > before:
            errors.append(invalid(path, "", f"{quoted} must validate all the schemas (allOf)"))
    if schema.get("anyOf") and not any(_holds(value, below, path) for below in schema["anyOf"]):
        errors.append(invalid(path, "", f"{quoted} must validate at least one schema (anyOf)"))
    if schema.get("oneOf"):
        number = sum(_holds(value, below, path) for below in schema["oneOf"])
        if number != 1:
            found = "none valid" if not number else f"{number} valid alternatives"
            detail = f"{quoted} must validate one and only one schema (oneOf). Found {found}"
            errors.append(invalid(path, "", detail))
    if schema.get("not") is not None and _holds(value, schema["not"], path):
        errors.append(invalid(path, "", f"{quoted} must not validate the schema (not)"))


def _parses(parse: Callable[[str], Any]) -> Callable[[str], bool]:
    def check(value: str) -> bool:
        try:
            parse(value)
        except (ValueError, binascii.Error):
            return False
        return True

    return check


def _date(value: str) -> None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", value):
        raise ValueError(value)
    parse_rfc3339(f"{value}T00:00:00Z")


def _date_time(value: str) -> None:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)", value):
        raise ValueError(value)
    parse_rfc3339(value.upper())


def _uri(value: str) -> None:
    if not urlsplit(value).scheme and not value.startswith("/"):
        raise ValueError(value)


def _matches(pattern: str) -> Callable[[str], bool]:
    found = re.compile(pattern)
    return lambda value: found.fullmatch(value) is not None


_DURATION: Final = (
    r"-?(\d+(\.\d*)?(ns|us|µs|ms|s|m|h|d|w| ?(nanos?|micros?|millis?|seconds?|minutes?|hours?|days?|weeks?))\s*)+"
)
_FORMATS: Final[Mapping[str, Callable[[str], bool]]] = {
    "date-time": _parses(_date_time),
    "date": _parses(_date),
    "duration": _matches(_DURATION),
    "byte": _parses(lambda value: base64.b64decode(value, validate=True)),
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "cidr": _parses(lambda value: ipaddress.ip_network(value, strict=False) if "/" in value else int("none")),
    "mac": _matches(r"([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}"),
    "uuid": _parses(uuid.UUID),
    "email": _matches(r"[^@\s]+@[^@\s]+"),
    "hostname": _matches(
        r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*\.?"
    ),
    "uri": _parses(_uri),
    "hexcolor": _matches(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
}

"""Request bodies: JSON and YAML into plain data, within limits, with duplicate keys found. Pure.

Never trusts: depth is bounded, NaN and aliases are refused, text must be UTF-8. Every failure is an ``ApiError``.
"""

import json
import math
from typing import Any

import orjson
import yaml

from controller.api import protobuf_body
from controller.api.status import ApiError, bad_request, unsupported_media
from controller.kinds.kind import Object

BODY_BYTES_MAX = 3 << 20
DEPTH_MAX = 200
JSON_TYPES = frozenset({"", "application/json", "text/json", "*/*"})
YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})
_DUPLICATES_MAX = 16


def media_type(content_type: str) -> str:
    """``application/json; charset=utf-8`` -> ``application/json``."""
    return content_type.split(";", 1)[0].strip().lower()


def decode_object(body: bytes, content_type: str) -> tuple[Object, list[str]]:
    """An object and what is to be said of its duplicate keys. Raises ``ApiError`` 400 or 415."""
    media = media_type(content_type)
    if media in JSON_TYPES:
        value, duplicates = decode_json(body)
    elif media in YAML_TYPES:
        value, duplicates = decode_yaml(body)
    elif media == protobuf_body.MEDIA_TYPE:
        value, duplicates = protobuf_body.decode(body), []
    else:
        raise unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: "
            "application/json, application/yaml"
        )
    if not isinstance(value, dict):
        raise bad_request(
            "couldn't get version/kind; json parse error: json: cannot unmarshal "
            f"{_go_kind(value)} into Go value of type struct"
        )
    return value, duplicates


def _go_kind(value: Any) -> str:
    if isinstance(value, list):
        return "array"
    return "string" if isinstance(value, str) else "bool" if isinstance(value, bool) else "number"


def decode_json(body: bytes) -> tuple[Any, list[str]]:
    """Any JSON value and what is to be said of duplicate keys: their paths. Raises ``ApiError`` 400."""
    try:
        value = orjson.loads(body)
        if nested_deeper(value, body):
            raise bad_request(f"the object is nested deeper than {DEPTH_MAX} levels")
        return value, _duplicates(body)
    except (ValueError, RecursionError) as err:
        raise bad_request(f"couldn't get version/kind; json parse error: {err}") from err


def nested_deeper(value: Any, body: bytes) -> bool:
    """Whether ``value`` is nested deeper than ``DEPTH_MAX``; cheap for anything that cannot be."""
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:
        return False
    level = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(child for child in item.values() if isinstance(child, dict | list))
            elif isinstance(item, list):
                below.extend(child for child in item if isinstance(child, dict | list))
        if not below:
            return False
        level = below
    return True


def _duplicates(body: bytes) -> list[str]:
    """What is to be said of keys that occur twice in one JSON object."""
    marks: dict[int, list[str]] = {}
    kept: list[Object] = []  # keeps the marked dicts alive, so that their ids stay theirs

    def build(pairs: list[tuple[str, Any]]) -> Object:
        made = dict(pairs)
        if len(made) != len(pairs):
            seen: set[str] = set()
            marks[id(made)] = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            kept.append(made)
        return made

    root = json.loads(body, object_pairs_hook=build)
    if not marks:
        return []
    found: list[str] = []
    stack: list[tuple[str, Any]] = [("", root)]
    while stack and len(found) < _DUPLICATES_MAX:
        path, value = stack.pop()
        if isinstance(value, dict):
            dot = "." if path else ""
            found.extend(f'duplicate field "{path}{dot}{key}"' for key in marks.get(id(value), ()))
            stack.extend((f"{path}{dot}{key}", child) for key, child in value.items())
        elif isinstance(value, list):
            stack.extend((f"{path}[{index}]", child) for index, child in enumerate(value))
    return found


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: no timestamps, no aliases (a handful of them expands into gigabytes)."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.duplicates: list[str] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not accepted; write the value out")
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> Any:
        made = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in made.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen and len(self.duplicates) < _DUPLICATES_MAX:
                self.duplicates.append(f'line {key.start_mark.line + 1}: key "{key.value}" already set in map')
            seen.add(key.value)
        return made


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def decode_yaml(body: bytes) -> tuple[Any, list[str]]:
    """Any YAML document as JSON data, and what is to be said of duplicate keys: their lines. Raises ``ApiError`` 400.

    JSON is tried first, being YAML and fast.
    """
    try:
        orjson.loads(body)
    except ValueError:
        try:
            loader = _Loader(body.decode())
            value, duplicates = _jsonable(loader.get_single_data(), 0), loader.duplicates
        except (yaml.YAMLError, ValueError, RecursionError) as err:
            raise bad_request(f"error converting YAML to JSON: yaml: {' '.join(str(err).split())}") from err
        if nested_deeper(value, body):
            raise bad_request(f"the object is nested deeper than {DEPTH_MAX} levels") from None
        return value, duplicates
    return decode_json(body)


def _jsonable(value: Any, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, dict):
        return {_key(key): _jsonable(child, depth + 1) for key, child in value.items()}
    if isinstance(value, list):
        return [_jsonable(child, depth + 1) for child in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("json: unsupported value: not a finite number")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a value of type {type(value).__name__} has no place in JSON")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, str | int | float):
        return str(key)
    raise ValueError("a mapping key must be a string")


def strictness(text: str) -> str:
    """The fieldValidation parameter: Strict, Warn (default) or Ignore. Raises ``ApiError`` 400."""
    if text in ("", "Warn"):
        return "Warn"
    if text in ("Strict", "Ignore"):
        return text
    raise bad_request(f'fieldValidation: Unsupported value: "{text}": supported values: "", "Ignore", "Strict", "Warn"')


def judge_fields(unknown: list[str], duplicates: list[str], mode: str, about: str = "") -> list[str]:
    """Warnings to send for unknown fields (paths) and duplicate ones (texts). Raises ``ApiError`` 400 in Strict mode.

    ``about`` begins the refusal: what could not be read.
    """
    problems = [f'unknown field "{path}"' for path in unknown] + duplicates
    if not problems or mode == "Ignore":
        return []
    if mode == "Strict":
        raise bad_request(f"{about}strict decoding error: {', '.join(problems)}")
    return problems


def decoding_error(kind: str, version: str, errors: list[str]) -> ApiError:
    """400 for values of the wrong type, in the API's words."""
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {errors[0]}')

"""JSON patch, RFC 6902. Pure: the document is copied before it is changed."""

import copy
from typing import Any

from controller.api.status import ApiError, bad_request

OPERATIONS_MAX = 10_000
_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")
COPIED_NODES_MAX = 1_000_000


def _refused(message: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {message}")


def check_json_patch(patch: Any) -> None:
    """Whether it is a list of operations at all. Raises ``ApiError`` 400 or 413."""
    if not isinstance(patch, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(patch) > OPERATIONS_MAX:
        text = f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(patch)}"
        raise ApiError(413, "RequestEntityTooLarge", text)
    for item in patch:
        if not isinstance(item, dict) or item.get("op") not in _OPERATIONS or not isinstance(item.get("path"), str):
            raise bad_request(f"a JSON patch operation needs op, one of {', '.join(_OPERATIONS)}, and path")
        if item["op"] in ("move", "copy") and not isinstance(item.get("from"), str):
            raise bad_request(f'JSON patch operation {item["op"]} needs "from"')
        if item["op"] in ("add", "replace", "test") and "value" not in item:
            raise bad_request(f'JSON patch operation {item["op"]} needs "value"')


def apply_json_patch(document: Any, patch: list[dict[str, Any]]) -> Any:
    """Patched copy of ``document``. Raises ``ApiError`` 422 when an operation does not fit."""
    result = copy.deepcopy(document)
    budget = COPIED_NODES_MAX
    for item in patch:
        path = _parse(item["path"])
        match item["op"]:
            case "add":
                result = _add(result, path, copy.deepcopy(item["value"]))
            case "remove":
                result, _ = _remove(result, path)
            case "replace":
                _get(result, path)
                result = _replace(result, path, copy.deepcopy(item["value"]))
            case "test":
                if not _same(_get(result, path, missing_is_none=True), item["value"]):
                    raise _refused(f"testing path {item['path']} value failed")
            case "move":
                source = _parse(item["from"])
                if len(path) > len(source) and path[: len(source)] == source:
                    raise _refused(f"cannot move {item['from']} into itself")
                result, value = _remove(result, source)
                result = _add(result, path, value)
            case _:
                value = _get(result, _parse(item["from"]))
                # A few copies of copies grow without bound.
                budget -= _nodes(value)
                if budget < 0:
                    raise _refused("copy operations produce too much data")
                result = _add(result, path, copy.deepcopy(value))
    return result


def _nodes(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + sum(_nodes(child) for child in value.values())
    if isinstance(value, list):
        return 1 + sum(_nodes(child) for child in value)
    return 1


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return bool(left == right)


def _parse(path: str) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise _refused(f'JSON pointer "{path}" must start with "/"')
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _index(part: str, length: int) -> int:
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0") or len(part) > 9:
        raise _refused(f'"{part}" is not an array index')
    if int(part) >= length:
        raise _refused(f"index {part} is out of bounds: the array has {length} items")
    return int(part)


def _get(document: Any, path: list[str], *, missing_is_none: bool = False) -> Any:
    for part in path:
        if isinstance(document, dict):
            if part not in document:
                if missing_is_none:
                    return None
                raise _refused(f'the path has no member "{part}": missing value')
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document))]
        else:
            raise _refused(f'"{part}" is looked up in something that is neither object nor array')
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent) + 1), value)
    else:
        raise _refused(f'cannot add "{last}" to something that is neither object nor array')
    return document


def _replace(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    parent[_index(last, len(parent)) if isinstance(parent, list) else last] = value
    return document


def _remove(document: Any, path: list[str]) -> tuple[Any, Any]:
    if not path:
        raise _refused("cannot remove the whole document")
    value = _get(document, path)
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.pop(_index(last, len(parent)))
    else:
        del parent[last]
    return document, value

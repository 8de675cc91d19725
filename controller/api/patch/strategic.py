"""Strategic merge patch. Pure: neither argument is changed, the result may share parts with both.

Spec: apimachinery ``util/strategicpatch`` and the community document "Strategic Merge Patch": lists whose schema says
``patchStrategy=merge`` merge by ``patchMergeKey`` (or as sets of scalars); the directives ``$patch``, ``$retainKeys``,
``$setElementOrder/x`` and ``$deleteFromPrimitiveList/x`` steer the rest.
"""

from typing import Any

from controller.api.status import ApiError, bad_request
from controller.kinds.kind import Object
from controller.kinds.schemas import Shape

_PATCH, _RETAIN = "$patch", "$retainKeys"
_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"


def strategic_merge(original: Object, patch: Object, shape: Shape) -> Object:
    """``patch`` laid over ``original`` as ``shape`` says. Raises ``ApiError`` 400 for a malformed directive."""
    return _merge_map(original, patch, shape)


def _invalid(what: str) -> ApiError:
    return bad_request(f"invalid strategic merge patch: {what}")


def _merge_map(original: Object, patch: Object, shape: Shape) -> Object:
    directive = patch.get(_PATCH)
    if directive == "replace":
        plain: Object = _plain({key: value for key, value in patch.items() if key != _PATCH})
        return plain
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _invalid(f"unknown patch type {directive!r}")
    result = _retain(original, patch)
    for key, value in patch.items():
        if key.startswith(_DELETE):
            _delete_scalars(result, key.removeprefix(_DELETE), value)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        below = shape.field(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            _set_map(result, key, value, below)
        elif isinstance(value, list):
            _set_list(result, key, value, patch.get(_ORDER + key), below)
        else:
            result[key] = value
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and isinstance(result.get(name), list):
            _set_list(result, name, [], order, shape.field(name))
    return result


def _retain(original: Object, patch: Object) -> Object:
    keys = patch.get(_RETAIN)
    if keys is None:
        return dict(original)
    if not isinstance(keys, list):
        raise _invalid(f"{_RETAIN} must be a list")
    return {key: value for key, value in original.items() if key in keys}


def _delete_scalars(result: Object, name: str, values: Any) -> None:
    if not isinstance(values, list):
        raise _invalid(f"{_DELETE}{name} must be a list")
    if isinstance(result.get(name), list):
        result[name] = [item for item in result[name] if item not in values]


def _set_map(result: Object, key: str, value: Object, below: Shape) -> None:
    before = result.get(key)
    if value.get(_PATCH) == "delete":
        result.pop(key, None)
    elif isinstance(before, dict) and "replace" not in below.patch_strategy:
        result[key] = _merge_map(before, value, below)
    else:
        result[key] = _merge_map({}, value, below)


def _set_list(result: Object, key: str, value: list[Any], order: Any, below: Shape) -> None:
    before = result.get(key)
    if "merge" not in below.patch_strategy:
        result[key] = _plain(value)
        return
    had = before if isinstance(before, list) else []
    if order is not None and not isinstance(order, list):
        raise _invalid(f"{_ORDER}{key} must be a list")
    if below.patch_merge_key:
        result[key] = _merge_objects(had, value, order, below)
    else:
        if any(isinstance(item, dict | list) for item in value):
            raise _invalid(f"{key} is a list of scalars")
        merged = [*had, *(item for item in dict.fromkeys(value) if item not in had)]
        result[key] = _ordered(merged, had, order, lambda item: item) if order else merged


def _merge_objects(original: list[Any], patch: list[Any], order: list[Any] | None, shape: Shape) -> list[Any]:
    by = shape.patch_merge_key
    if any(not isinstance(item, dict) for item in patch):
        raise _invalid(f"items of a list that merges by {by} must be objects")
    if any(item.get(_PATCH) == "replace" and by not in item for item in patch):
        return [_plain(item) for item in patch if _PATCH not in item]
    merged = list(original)
    for item in patch:
        if by not in item:
            raise _invalid(f"map: {item!r} does not contain declared merge key: {by}")
        wanted = item[by]
        at = next((i for i, have in enumerate(merged) if isinstance(have, dict) and have.get(by) == wanted), None)
        if item.get(_PATCH) == "delete":
            merged = [have for have in merged if not (isinstance(have, dict) and have.get(by) == wanted)]
        elif at is not None:
            merged[at] = _merge_map(merged[at], item, shape.item)
        else:
            merged.append(_merge_map({}, item, shape.item))
    if not order:
        return merged
    wanted_order = [item.get(by) if isinstance(item, dict) else item for item in order]
    return _ordered(merged, original, wanted_order, lambda item: item.get(by) if isinstance(item, dict) else None)


def _ordered(merged: list[Any], live: list[Any], order: list[Any], key: Any) -> list[Any]:
    """Items named in ``order`` in that order; the others keep their place relative to the live list.

    Each of the others goes before the first ordered item that follows it in the live list.
    """
    places = {_hashable(value): index for index, value in enumerate(order)}
    live_places = {_hashable(key(item)): index for index, item in enumerate(live)}
    named = sorted((item for item in merged if _hashable(key(item)) in places), key=lambda i: places[_hashable(key(i))])
    others = [item for item in merged if _hashable(key(item)) not in places]
    result: list[Any] = []
    rest = iter(named)
    pending = next(rest, None)
    for other in others:
        mine = live_places.get(_hashable(key(other)), len(live))
        while pending is not None and live_places.get(_hashable(key(pending)), -1) <= mine:
            result.append(pending)
            pending = next(rest, None)
        result.append(other)
    if pending is not None:
        result.append(pending)
    result.extend(rest)
    return result


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else value


def _plain(value: Any) -> Any:
    """Without directives and nulls: what a patch means where there is nothing to merge with."""
    if isinstance(value, dict):
        return {key: _plain(child) for key, child in value.items() if not key.startswith("$") and child is not None}
    if isinstance(value, list):
        return [
            _plain(child)
            for child in value
            if not (isinstance(child, dict) and child.get(_PATCH) in ("delete", "replace"))
        ]
    return value

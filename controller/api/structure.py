"""Objects as trees of owned fields: compare two, merge one over another, remove paths. Pure.

What is one unit of ownership follows the schema: lists of type ``map`` are keyed, of type ``set`` have members, all
other lists and ``atomic`` maps are one value. Spec: structured-merge-diff ``typed``.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from controller.api.fieldset import Path, item_key, member
from controller.api.fieldset import field as element_of
from controller.kinds.kind import Object
from controller.kinds.schemas import Shape

_KEY_DEFAULTS = {"protocol": "TCP"}


@dataclass(slots=True)
class Difference:
    """Paths that the new object has and the old has not, whose value differs, and that are gone."""

    added: set[Path] = field(default_factory=set)
    modified: set[Path] = field(default_factory=set)
    removed: set[Path] = field(default_factory=set)

    @property
    def changed(self) -> set[Path]:
        return self.added | self.modified


def compare(shape: Shape, old: Any, new: Any) -> Difference:
    """What differs; equal parts cost one comparison."""
    found = Difference()
    _compare(shape, old, new, (), found)
    return found


def paths_of(shape: Shape, obj: Any) -> frozenset[Path]:
    """Every path that ``obj`` sets."""
    found: set[Path] = set()
    _collect(shape, obj, (), found)
    return frozenset(found)


def _mapping(shape: Shape, value: Any) -> bool:
    return isinstance(value, dict) and shape.map_type != "atomic" and shape.type in ("object", "map", "any")


def _keyed(shape: Shape, value: Any) -> bool:
    return isinstance(value, list) and shape.list_type == "map" and all(isinstance(item, dict) for item in value)


def _is_set(shape: Shape, value: Any) -> bool:
    return isinstance(value, list) and shape.list_type == "set"


def key_of(shape: Shape, item: Object) -> str:
    """Path element of an item of a keyed list."""
    keys = {name: item.get(name, _KEY_DEFAULTS.get(name)) for name in shape.list_map_keys}
    return item_key({name: value for name, value in keys.items() if value is not None})


def _items(shape: Shape, value: list[Any]) -> dict[str, Any]:
    return {key_of(shape, item): item for item in value}


def _compare(shape: Shape, old: Any, new: Any, path: Path, found: Difference) -> None:
    if old == new and type(old) is type(new):
        return
    if old is None:
        _collect(shape, new, path, found.added)
    elif new is None:
        _collect(shape, old, path, found.removed)
    elif _mapping(shape, old) and _mapping(shape, new):
        for name in {**old, **new}:
            _compare(shape.field(name), old.get(name), new.get(name), (*path, element_of(name)), found)
        if path and not new and old:
            found.modified.add(path)
    elif _keyed(shape, old) and _keyed(shape, new):
        before, after = _items(shape, old), _items(shape, new)
        for key in {**before, **after}:
            _compare_item(shape.item, before.get(key), after.get(key), (*path, key), found)
    elif _is_set(shape, old) and _is_set(shape, new):
        had, has = {(*path, member(item)) for item in old}, {(*path, member(item)) for item in new}
        found.added |= has - had
        found.removed |= had - has
    elif path:
        found.modified.add(path)


def _compare_item(shape: Shape, old: Any, new: Any, path: Path, found: Difference) -> None:
    if old is None:
        found.added.add(path)
    elif new is None:
        found.removed.add(path)
    _compare(shape, old, new, path, found)


def _collect(shape: Shape, value: Any, path: Path, found: set[Path]) -> None:
    if _mapping(shape, value):
        for name, child in value.items():
            _collect(shape.field(name), child, (*path, element_of(name)), found)
        if not value and path:
            found.add(path)
    elif _keyed(shape, value):
        for key, item in _items(shape, value).items():
            found.add((*path, key))
            _collect(shape.item, item, (*path, key), found)
    elif _is_set(shape, value):
        found.update((*path, member(item)) for item in value)
    elif path:
        found.add(path)


def merged(shape: Shape, live: Any, config: Any) -> Any:
    """``config`` laid over ``live``; neither is changed."""
    if _mapping(shape, live) and _mapping(shape, config):
        result = dict(live)
        for name, value in config.items():
            result[name] = merged(shape.field(name), live[name], value) if name in live else copy.deepcopy(value)
        return result
    if _keyed(shape, live) and _keyed(shape, config):
        return _merged_items(shape, _items(shape, live), _items(shape, config))
    if _is_set(shape, live) and _is_set(shape, config):
        return [*live, *(item for item in config if item not in live)]
    return copy.deepcopy(config)


def _merged_items(shape: Shape, live: dict[str, Any], config: dict[str, Any]) -> list[Any]:
    both = {key: merged(shape.item, live[key], item) if key in live else item for key, item in config.items()}
    if live.keys() <= config.keys():
        return list(both.values())
    kept = [both.get(key, item) for key, item in live.items()]
    return [*kept, *(item for key, item in both.items() if key not in live)]


def without(shape: Shape, obj: Object, paths: Iterable[Path]) -> Object:
    """A copy of ``obj`` in which ``paths`` and everything below them are gone; missing ones are ignored."""
    result: Object = copy.deepcopy(obj)
    doomed = set(paths)
    for path in doomed:
        # Whole items only: an item whose key fields went first could not be found any more.
        if not any(path[:length] in doomed for length in range(1, len(path))):
            _remove(shape, result, path)
    return result


def _remove(shape: Shape, node: Any, path: Path) -> None:
    for element in path[:-1]:
        node, shape = _descend(shape, node, element)
        if node is None:
            return
    last = path[-1]
    if isinstance(node, dict) and last.startswith("f:"):
        node.pop(last[2:], None)
    elif isinstance(node, list) and last.startswith("k:"):
        node[:] = [item for item in node if not isinstance(item, dict) or key_of(shape, item) != last]
    elif isinstance(node, list) and last.startswith("v:"):
        node[:] = [item for item in node if member(item) != last]


def _descend(shape: Shape, node: Any, element: str) -> tuple[Any, Shape]:
    if isinstance(node, dict) and element.startswith("f:"):
        return node.get(element[2:]), shape.field(element[2:])
    if isinstance(node, list) and element.startswith("k:"):
        found = next((item for item in node if isinstance(item, dict) and key_of(shape, item) == element), None)
        return found, shape.item
    return None, shape

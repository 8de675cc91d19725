"""Sets of field paths, as ``managedFields`` keeps them (FieldsV1). Pure.

A path is a tuple of FieldsV1 elements: ``f:name`` for a field, ``k:{...}`` for a list item by its keys, ``v:...`` for a
member of a set. Spec: structured-merge-diff ``fieldpath/serialize.go``.
"""

from collections.abc import Collection
from typing import Any

import orjson

from controller.kinds.kind import Object

Path = tuple[str, ...]
Paths = frozenset[Path]


def field(name: str) -> str:
    """Element of a named field."""
    return f"f:{name}"


def item_key(keys: dict[str, Any]) -> str:
    """Element of a list item with these key values."""
    return "k:" + orjson.dumps(keys, option=orjson.OPT_SORT_KEYS).decode()


def member(value: Any) -> str:
    """Element of a set's member."""
    return "v:" + orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def encode(paths: Collection[Path]) -> Object:
    """``fieldsV1`` of a set of paths, in a stable order."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for index, element in enumerate(path):
            last = index == len(path) - 1
            if element not in node:
                node[element] = {}
            elif last:
                # Sorting brings a path before its children, so a node that exists already was listed twice.
                continue
            below = node[element]
            if not last and not below and path[: index + 1] in paths:
                below["."] = {}
            node = below
    return root


def decode(fields: Any) -> Paths:
    """Paths of a ``fieldsV1``; whatever is malformed in it is ignored."""
    found: set[Path] = set()

    def walk(node: Any, path: Path) -> None:
        if not isinstance(node, dict):
            return
        if path and (not node or "." in node):
            found.add(path)
        if len(path) < 100:
            for element, below in node.items():
                if element != ".":
                    walk(below, (*path, element))

    walk(fields, ())
    return frozenset(found)


def text(path: Path) -> str:
    """As conflicts name it: ``.spec.containers[name="x"].image``."""
    return "".join(_element_text(element) for element in path)


def _element_text(element: str) -> str:
    kind, _, value = element.partition(":")
    if kind == "f":
        return f".{value}"
    if kind == "v":
        return f"[={value}]"
    keys = orjson.loads(value)
    return "[" + ",".join(f"{key}={orjson.dumps(part).decode()}" for key, part in sorted(keys.items())) + "]"

"""The part of JSONPath that printer columns, scale paths and selectable fields use. Pure.

``.a.b``, ``['a']``, ``[0]``, ``[-1]``, ``[*]`` and ``[?(@.type=="Ready")]``.
Spec: https://kubernetes.io/docs/reference/kubectl/jsonpath/
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

Step = Callable[[Any], list[Any]]

_TOKEN: Final = re.compile(
    r"""
      \.(?P<name>(?:\\.|[^.\[\]\\])+)                                  # .name, with \. for a dot inside of it
    | \[\s*(?P<index>-?\d+)\s*\]                                        # [0]
    | \[\s*\*\s*\]                                                      # [*]
    | \[\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\s*\]             # ['name']
    | \[\?\(\s*@(?P<left>[^=!<>]*?)\s*(?P<op>==|!=)\s*(?P<right>[^)]*?)\s*\)\]  # [?(@.a=="b")]
    """,
    re.VERBOSE,
)


class InvalidPath(ValueError):
    """The path is malformed; the message says where."""


def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """A function from an object to the values that ``text`` names. Raises ``InvalidPath``."""
    steps = _steps(text)

    def find(obj: Any) -> list[Any]:
        found = [obj]
        for step in steps:
            found = [value for each in found for value in step(each)]
        return found

    return find


def _steps(text: str) -> Sequence[Step]:
    steps: list[Step] = []
    at = 0
    path = text.strip().removeprefix("$")
    if path in ("", "."):
        return steps
    while at < len(path):
        match = _TOKEN.match(path, at)
        if match is None:
            raise InvalidPath(f"cannot read {path[at:]!r} in {text!r}")
        steps.append(_step(match))
        at = match.end()
    return steps


def _step(match: re.Match[str]) -> Step:
    name = match["name"] or match["single"] or match["double"]
    if name is not None:
        plain = re.sub(r"\\(.)", r"\1", name)
        if plain == "*":
            return _children
        return lambda value: [value[plain]] if isinstance(value, dict) and value.get(plain) is not None else []
    if match["index"] is not None:
        index = int(match["index"])
        return lambda value: [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if match["op"] is not None:
        return _filter(match["left"], match["op"], match["right"])
    return _children


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else []


def _filter(left: str, op: str, right: str) -> Step:
    find = compile_path(left)
    wanted = _literal(right)

    def step(value: Any) -> list[Any]:
        items = value if isinstance(value, list) else []
        return [item for item in items if ((find(item)[:1] == [wanted]) is (op == "=="))]

    return step


def _literal(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        return text

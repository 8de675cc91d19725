"""Write TOML: the few shapes that config files of the daemons have. Pure. (The standard library only reads it.)"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

Value = str | int | float | bool | Path | Sequence[str] | Mapping[str, "Value"]


def dumps(table: Mapping[str, Value]) -> str:
    """Text of ``table``; nested mappings become ``[a.b]`` sections."""
    return "\n".join(_section(table, ())) + "\n"


def _section(table: Mapping[str, Value], path: tuple[str, ...]) -> list[str]:
    lines = [f"[{'.'.join(path)}]"] if path else []
    nested: list[str] = []
    for key, value in table.items():
        if isinstance(value, Mapping):
            nested += ["", *_section(value, (*path, _key(key)))]
        else:
            lines.append(f"{_key(key)} = {_scalar(value)}")
    return lines + nested


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "").isalnum() and key.isascii()
    return key if bare else json.dumps(key)


def _scalar(value: str | int | float | bool | Path | Sequence[str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        # A JSON string is a valid TOML basic string.
        return json.dumps(str(value), ensure_ascii=False)
    return "[" + ", ".join(_scalar(item) for item in value) + "]"

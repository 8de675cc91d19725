"""Development tool: reads field numbers out of Go type declarations and writes ``fields.json``.

``python -m controller.api.wire.generate API_GIT_DIR APIMACHINERY_GIT_DIR`` with bare or plain clones of
kubernetes/api and kubernetes/apimachinery. Only the interface is taken: message, number, JSON name, type.
"""

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

_STRUCT = re.compile(r"^type (\w+) struct \{$")
_ALIAS = re.compile(r"^type (\w+) (\S+)")
_FIELD = re.compile(r'^\t(?:(\w+)\s+)?(\S+)\s+`json:"([^"]*)"[^`]*\bprotobuf:"([^"]*)"')
_STABLE = re.compile(r"/v\d+$|/(resource|runtime|intstr)$")
_IMPORT = re.compile(r'^\t(?:(\w+) )?"(k8s\.io/[^"]+)"')
_ROOTS = {"api": "k8s.io/api/", "apimachinery": "k8s.io/apimachinery/"}
_SCALARS = {"string", "bool", "int", "int32", "int64", "uint32", "uint64", "uint8", "float64", "byte"}


@dataclass
class Package:
    """Declarations of one Go package."""

    path: str
    group: str | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    structs: dict[str, list[tuple[str, str, str, dict[str, str]]]] = field(default_factory=dict)


def _git(folder: str, *arguments: str) -> str:
    done = subprocess.run(["git", "--git-dir", folder, *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def _read(folder: str, root: str, packages: dict[str, Package]) -> None:
    for name in _git(folder, "ls-tree", "-r", "--name-only", "HEAD").splitlines():
        if not name.endswith(".go") or "_test" in name or "zz_" in name or "generated" in name:
            continue
        package = packages.setdefault(root + name.rpartition("/")[0], Package(root + name.rpartition("/")[0]))
        _parse(_git(folder, "show", f"HEAD:{name}"), package)


def _parse(text: str, package: Package) -> None:
    imports: dict[str, str] = {}
    current: list[tuple[str, str, str, dict[str, str]]] | None = None
    for line in text.splitlines():
        if found := _IMPORT.match(line):
            imports[found[1] or found[2].rpartition("/")[2]] = found[2]
        elif found := re.match(r'^const GroupName = "(.*)"', line):
            package.group = found[1]
        elif found := _STRUCT.match(line):
            current = package.structs.setdefault(found[1], [])
        elif line == "}":
            current = None
        elif current is not None and (found := _FIELD.match(line)):
            current.append((found[2], found[3], found[4], imports))
        elif current is None and (found := _ALIAS.match(line)):
            package.aliases[found[1]] = found[2]


def _definition(path: str, name: str) -> str:
    return "io." + path.replace("k8s.io/", "k8s.").replace("/", ".") + "." + name


def _wire_type(go: str, imports: dict[str, str], package: Package, packages: dict[str, Package]) -> str:
    """``s`` string, ``b`` bytes, ``i`` signed varint, ``?`` bool, ``d`` double, ``map:<value>`` or a message's name."""
    go = go.lstrip("*")
    if go.startswith("map["):
        return "map:" + _wire_type(go.partition("]")[2], imports, package, packages)
    if go in ("[]byte", "[]uint8"):
        return "b"
    go = go.removeprefix("[]").lstrip("*")
    owner = package
    if "." in go:
        alias, go = go.split(".")
        owner = packages.get(imports.get(alias, ""), Package(imports.get(alias, "") or alias))
    if go in _SCALARS:
        return {"string": "s", "bool": "?", "float64": "d", "byte": "b"}.get(go, "i")
    if go in owner.structs or go not in owner.aliases:
        return _definition(owner.path, go)
    target = owner.aliases[go]
    if target == "[]string":
        return "list"
    return _wire_type(target, imports, owner, packages)


def main() -> None:
    """Write the table beside this file."""
    packages: dict[str, Package] = {}
    for folder, root in zip(sys.argv[1:], _ROOTS.values(), strict=True):
        _read(folder, root, packages)
    messages: dict[str, dict[str, Any]] = {}
    groups: dict[str, str] = {}
    for package in packages.values():
        if not _STABLE.search(package.path):
            continue
        if package.group is not None:
            version = package.path.rpartition("/")[2]
            groups[f"{package.group}/{version}" if package.group else version] = _definition(package.path, "")
        for name, fields in package.structs.items():
            table: dict[str, Any] = {}
            for go, json_tag, tag, imports in fields:
                number = tag.split(",")[1]
                kind = _wire_type(go, imports, package, packages)
                flags = "r" if go.startswith("[]") and kind != "b" else ""
                flags += "p" if go.startswith("*") else ""
                flags += "o" if "omitempty" in json_tag else ""
                table[number] = [json_tag.split(",")[0], kind, flags]
            if table:
                messages[_definition(package.path, name)] = table
    groups["v1"] = "io.k8s.api.core.v1."
    data = {"groups": groups, "messages": messages}
    (Path(__file__).parent / "fields.json").write_bytes(orjson.dumps(data, option=orjson.OPT_SORT_KEYS))


if __name__ == "__main__":
    main()

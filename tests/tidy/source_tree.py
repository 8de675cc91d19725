"""The project's own Python files, parsed once, for the checks in this folder."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "controller", "spherelet", "nsx_agent", "sphere")


@dataclass(frozen=True)
class Source:
    """One module: its path from the root, dotted name, text and syntax tree."""

    path: str
    module: str
    text: str
    tree: ast.Module

    def imports(self) -> Iterator[tuple[int, str]]:
        """Every absolute module name this file imports, with its line. ``from a import b`` yields ``a`` and ``a.b``."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield node.lineno, alias.name
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                yield node.lineno, node.module
                for alias in node.names:
                    yield node.lineno, f"{node.module}.{alias.name}"


def is_generated(path: Path) -> bool:
    """Generated stubs are not ours to style."""
    return path.name.endswith(("_pb2.py", "_pb2_grpc.py"))


@cache
def sources() -> tuple[Source, ...]:
    """Every module of the project, sorted by path."""
    found = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if is_generated(path) or "__pycache__" in path.parts:
                continue
            text = path.read_text()
            relative = path.relative_to(ROOT)
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            found.append(Source(str(relative), module, text, ast.parse(text)))
    return tuple(found)

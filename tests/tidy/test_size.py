"""Small files and functions: one reason to change each."""

import ast

import pytest

from tests.tidy.source_tree import Source, sources

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

LARGER_FILES: dict[str, str] = {}
"""path -> why it may be larger."""

LARGER_FUNCTIONS: dict[str, str] = {}
"""path::function -> why it may be larger."""

BANNED_STEMS = {"utils", "util", "helpers", "helper", "misc"}


@pytest.mark.parametrize("source", sources(), ids=lambda s: s.path)
def test_file_and_functions_are_small(source: Source) -> None:
    lines = source.text.count("\n")
    assert lines <= FILE_LINES_MAX or source.path in LARGER_FILES, f"{source.path}: {lines} lines"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            name = f"{source.path}::{node.name}"
            assert size <= FUNCTION_LINES_MAX or name in LARGER_FUNCTIONS, f"{name}: {size} lines"


@pytest.mark.parametrize("source", sources(), ids=lambda s: s.path)
def test_names_say_what_is_inside(source: Source) -> None:
    assert source.module.rpartition(".")[2] not in BANNED_STEMS
    assert ast.get_docstring(source.tree), f"{source.path} opens without saying what it is"

"""Documents tell the truth: every path and every test that a README names exists."""

import re
from pathlib import Path

import pytest

from tests.tidy.source_tree import ROOT

READMES = sorted(
    p
    for p in ROOT.rglob("*.md")
    if not {"run", ".venv", "build", "node_modules", ".git"} & set(p.relative_to(ROOT).parts)
)
PATH_IN_TEXT = re.compile(r"`((?:[\w.\-]+/)+[\w.\-]*|[\w\-]+\.(?:py|md|toml|yml|yaml|sh))(?:::(\w+))?`")
GENERATED = ("run/", "build/", ".venv/")


@pytest.mark.parametrize("readme", READMES, ids=lambda p: str(p.relative_to(ROOT)))
def test_named_paths_exist(readme: Path) -> None:
    missing = []
    for path, test in PATH_IN_TEXT.findall(readme.read_text()):
        if path.startswith(GENERATED) or _is_foreign(path):
            continue
        candidates = [ROOT / path, readme.parent / path]
        found = next((c for c in candidates if c.exists()), None)
        if found is None:
            missing.append(path)
        elif test and f"def {test}(" not in found.read_text():
            missing.append(f"{path}::{test}")
    assert not missing, f"{readme.relative_to(ROOT)} names what does not exist"


def _is_foreign(path: str) -> bool:
    """MQTT topics, API paths, images and resource names look like paths but are none of ours."""
    top = path.split("/")[0]
    return "/" in path and not (ROOT / top).exists()


def test_root_readme_promises_name_tests() -> None:
    text = (ROOT / "README.md").read_text()
    if "## Promises" not in text:
        pytest.fail("README.md has no promises table")
    rows = [
        r for r in text.split("## Promises")[1].split("\n## ")[0].splitlines() if r.startswith("| ") and "---" not in r
    ]
    unnamed = [r for r in rows[1:] if "tests/" not in r and "not yet" not in r]
    assert not unnamed, "each promise names the test that holds it, or says `not yet`"

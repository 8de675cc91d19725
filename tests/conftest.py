"""What all tests share: the fixtures of a whole cluster, and the order of the folders, quick ones first."""

import os

import pytest
from hypothesis import settings

from sphere.kubectl import search_path

# A change is judged by the same examples every time; searching for new ones is for people and long runs.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None)
settings.load_profile("repeatable" if os.environ.get("CI") else "search")

# Tests say `kubectl` and `helm`, and mean what the project's own code would run.
os.environ["PATH"] = search_path()

pytest_plugins = ["tests.support.cluster"]

LAST = ("ansible", "integration", "e2e", "chaos")
"""Folders in the order in which they come after all others: a cluster is brought up only when the rest has passed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by folder; within a folder the order stays."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    parts = item.path.parts
    return next((1 + index for index, name in enumerate(LAST) if name in parts), 0)

"""Import layers: components never import each other, and pure modules do no IO."""

import fnmatch

import pytest

from tests.tidy.source_tree import PACKAGES, Source, sources

ALLOWED = {
    "common": {"common"},
    "controller": {"controller", "common"},
    "spherelet": {"spherelet", "common"},
    "nsx_agent": {"nsx_agent", "common"},
    "sphere": {"sphere", "common"},
}

PURE = (
    "common/messages.py",
    "common/selectors.py",
    "common/quantity.py",
    "controller/kinds/*.py",
    "controller/network/ipam.py",
    "controller/network/policy.py",
    "controller/network/services.py",
    "controller/network/span.py",
    "controller/reconcilers/*.py",
    "controller/scheduler/filters.py",
    "controller/scheduler/scores.py",
    "controller/scheduler/choose.py",
    "controller/scheduler/neighbours.py",
    "controller/scheduler/preempt.py",
    "spherelet/admission.py",
    "spherelet/model.py",
    "spherelet/seams.py",
    "spherelet/plan.py",
    "spherelet/lifecycle.py",
    "spherelet/report.py",
    "spherelet/server/spdy.py",
    "nsx_agent/model.py",
    "nsx_agent/plan.py",
    "nsx_agent/render/*.py",
)
"""Modules that decide. Same input, same output: nothing here may reach the world."""

IMPURE_MODULES = {
    "aiohttp",
    "aiomqtt",
    "asyncio",
    "grpc",
    "logging",
    "os",
    "random",
    "requests",
    "socket",
    "structlog",
    "subprocess",
    "time",
    "common.clock",
    "common.kube",
    "common.logs",
    "common.mqtt",
}

IMPURE_EXCEPTIONS = {
    ("common.clock", "parse_rfc3339"),
    ("common.clock", "rfc3339"),
    ("common.clock", "rfc3339_micro"),
}
"""Pure functions that live beside an impure one."""


@pytest.mark.parametrize("source", sources(), ids=lambda s: s.path)
def test_components_share_only_common(source: Source) -> None:
    package = source.module.partition(".")[0]
    wrong = [
        f"{source.path}:{line} imports {name}"
        for line, name in source.imports()
        if (top := name.partition(".")[0]) in PACKAGES and top not in ALLOWED[package]
    ]
    assert not wrong, "components meet only at common/ and at their wire contracts"


def test_only_entry_imports_uvloop() -> None:
    wrong = [s.path for s in sources() for _, name in s.imports() if name == "uvloop" and s.path != "common/entry.py"]
    assert not wrong, "the loop is chosen in one place"


@pytest.mark.parametrize(
    "source", [s for s in sources() if any(fnmatch.fnmatch(s.path, p) for p in PURE)], ids=lambda s: s.path
)
def test_pure_modules_do_no_io(source: Source) -> None:
    wrong = []
    for line, name in source.imports():
        module, _, attribute = name.rpartition(".")
        if (module, attribute) in IMPURE_EXCEPTIONS:
            continue
        if name in IMPURE_MODULES and not _only_pure_names(source, name):
            wrong.append(f"{source.path}:{line} imports {name}")
    assert not wrong, "a module that decides must not reach the world; pass what it needs as arguments"


def _only_pure_names(source: Source, module: str) -> bool:
    names = {n for _, n in source.imports() if n.startswith(module + ".")}
    return bool(names) and names <= {f"{m}.{a}" for m, a in IMPURE_EXCEPTIONS}


def test_every_pure_pattern_matches_something() -> None:
    dead = [p for p in PURE if not any(fnmatch.fnmatch(s.path, p) for s in sources())]
    assert not dead, "patterns that match no file guard nothing"

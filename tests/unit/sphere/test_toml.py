"""TOML that `sphere` writes is what the standard library reads."""

import tomllib
from pathlib import Path

from sphere.toml import dumps


def test_reads_back() -> None:
    table = {
        "host": "host-1",
        "state": Path("/a b/c"),
        "quoted": 'say "hi" \\ ü\n',
        "count": 3,
        "ratio": 0.5,
        "on": True,
        "list": ["a", "b"],
        "server": {"listen": "1.2.3.4:5", "tls": {"ca": "ca.crt"}},
        "odd key": {"x.y": 1},
    }
    assert tomllib.loads(dumps(table)) == {**table, "state": "/a b/c"}


def test_scalars_after_a_section_stay_at_their_level() -> None:
    assert tomllib.loads(dumps({"a": {"b": 1}, "c": 2})) == {"a": {"b": 1}, "c": 2}

"""What `sphere status` finds wrong is told with its cure."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import Retryable
from sphere import api, status
from sphere.layout import Layout
from sphere.wanted import Wanted, write_wanted


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    write_wanted(Layout(tmp_path), Wanted(hosts=2))
    return Layout(tmp_path)


def _row(state: str, component: str = "nsx-agent") -> dict[str, Any]:
    return {"machine": "host-1", "component": component, "state": state}


@pytest.mark.parametrize(
    ("row", "cure"),
    [
        (_row("off", ""), "host-1 is off; `sphere host start host-1`"),
        (_row("stopped"), "`sphere host start host-1 --component nsx-agent`"),
        (_row("restarting"), "logs/host-1/nsx-agent.log"),
    ],
)
def test_a_component_that_does_not_run(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, row: dict[str, Any], cure: str
) -> None:
    monkeypatch.setattr(api, "node_readiness", lambda _layout: {"host-1": True, "host-2": True})
    assert status.problems(layout, [_row("running")]) == []
    (said,) = status.problems(layout, [_row("running"), row])
    assert cure in said


def test_nodes_and_api(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "node_readiness", lambda _layout: {"host-1": True, "host-2": False})
    (said,) = status.problems(layout, [_row("running")])
    assert said.startswith("not Ready: host-2; `kubectl describe node host-2`")

    def away(_layout: Layout) -> dict[str, bool]:
        raise Retryable("the API does not answer: connection refused")

    monkeypatch.setattr(api, "node_readiness", away)
    assert status.problems(layout, []) == ["the API does not answer: connection refused"]


def test_no_cluster(tmp_path: Path) -> None:
    assert status.problems(Layout(tmp_path), []) == ["no cluster is up; start one with `sphere up`"]

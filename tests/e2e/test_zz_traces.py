"""After all that the other tests did to it, no component has met a bug of ours. (The name puts it last.)"""

import json
from pathlib import Path
from typing import Any

import pytest

from common.clock import parse_rfc3339

pytestmark = pytest.mark.e2e


def traces(log: Path, since: float) -> list[str]:
    """What was logged with an exception after ``since``; lines that are not JSON belong to the entry before them."""
    found, fresh = [], False
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            fresh = parse_rfc3339(entry["timestamp"]) >= since if "timestamp" in entry else fresh
            if fresh and entry.get("exception"):
                found.append(f"{log.parent.name}: {entry.get('event')}: {entry['exception'].splitlines()[-1]}")
        except (ValueError, KeyError, TypeError):
            if fresh and line.lstrip(" |+").startswith(("Traceback", "Exception Group Traceback")):
                found.append(f"{log.parent.name}: {line}")
    return found


@pytest.mark.parametrize("component", ["sphere-controller", "spherelet", "nsx-agent"])
def test_no_component_logged_a_trace(cluster: Any, component: str) -> None:
    logs = sorted((cluster.layout.run / "logs").glob(f"*/{component}.log"))
    assert logs
    assert [trace for log in logs for trace in traces(log, cluster.since)] == []

"""READY, STATUS and RESTARTS of a pod, as kubectl shows them."""

from typing import Any

import pytest

from controller.kinds import columns
from controller.kinds.kind import ResourceKey
from controller.kinds.pod_status import ready, status_text
from controller.kinds.registry import REGISTRY

RUNNING = {"name": "c", "ready": True, "state": {"running": {}}}


def pod(*, status: dict[str, Any], deleted: bool = False, init: int = 0) -> dict[str, Any]:
    meta = {"name": "p", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})}
    inits = [{"name": f"i{n}"} for n in range(init)]
    return {"metadata": meta, "spec": {"containers": [{"name": "c"}], "initContainers": inits}, "status": status}


@pytest.mark.parametrize(
    ("obj", "text"),
    [
        (pod(status={"phase": "Pending"}), "Pending"),
        (pod(status={"phase": "Running", "containerStatuses": [RUNNING]}), "Running"),
        (pod(status={"phase": "Running", "containerStatuses": [RUNNING]}, deleted=True), "Terminating"),
        (
            pod(status={"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}),
            "ErrImagePull",
        ),
        (
            pod(status={"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 3}}}]}),
            "ExitCode:3",
        ),
        (pod(status={"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (
            pod(
                status={"phase": "Pending", "initContainerStatuses": [{"name": "i0", "state": {"running": {}}}]}, init=2
            ),
            "Init:0/2",
        ),
    ],
)
def test_status(obj: dict[str, Any], text: str) -> None:
    assert status_text(obj) == text


def test_ready_counts_running_and_ready_containers() -> None:
    assert ready(pod(status={"containerStatuses": [RUNNING]})) == "1/1"
    assert ready(pod(status={"containerStatuses": [{**RUNNING, "ready": False}]})) == "0/1"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "5s"), (119, "119s"), (120, "2m"), (205, "3m25s"), (601, "10m"), (3 * 3600, "3h"), (49 * 3600, "2d1h")],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert columns.human_duration(seconds) == text


def test_a_gated_pod_says_from_the_start_that_nobody_schedules_it() -> None:
    kind = REGISTRY.by_key(ResourceKey("", "pods"))
    gated: dict[str, Any] = {"metadata": {"name": "p"}, "spec": {"schedulingGates": [{"name": "a.b/c"}]}}
    kind.prepare_create(gated)
    assert status_text(gated) == "SchedulingGated"
    assert gated["status"]["conditions"][0]["type"] == "PodScheduled"
    free: dict[str, Any] = {"metadata": {"name": "p"}, "spec": {}}
    kind.prepare_create(free)
    assert "conditions" not in free["status"]

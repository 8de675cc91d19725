"""What a change in the API makes of what is remembered of a pod."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from spherelet.desired import Desired
from spherelet.model import Failure, Image
from spherelet.observed import CONFIG_ERROR, Record


def a_pod(image: str = "i", **annotations: str) -> dict[str, Any]:
    metadata = {"uid": "u", "name": "p", "namespace": "n", "annotations": annotations}
    return {"metadata": metadata, "spec": {"nodeName": "h", "containers": [{"name": "main", "image": image}]}}


def desired(tmp_path: Path) -> tuple[Desired, Record]:
    records: dict[str, Record] = {}
    wanted = Desired(records, tmp_path, "h", SystemClock(), lambda uid: None)
    wanted.change("ADDED", a_pod())
    record = records["u"]
    record.images["main"] = Image("sha256:1", "r", ())
    record.volumes = {}
    failed = Failure(CONFIG_ERROR, "m", 2e12)
    record.container_failures = {"main": failed, "other": replace(failed, reason="CreateContainerError")}
    return wanted, record


def test_another_image_is_looked_up_and_has_to_last(tmp_path: Path) -> None:
    wanted, record = desired(tmp_path)
    wanted.change("MODIFIED", a_pod())
    assert (record.redefined_at, list(record.images)) == (0.0, ["main"])
    wanted.change("MODIFIED", a_pod("new"))
    assert record.redefined_at > 0
    assert record.images == {}


def test_other_annotations_may_be_what_a_container_waits_for(tmp_path: Path) -> None:
    wanted, record = desired(tmp_path)
    wanted.change("MODIFIED", a_pod(path="x"))
    assert record.volumes is None
    assert record.container_failures["main"].retry_at < 2e12
    assert record.container_failures["other"].retry_at == 2e12

"""Files and names that a pod gets, and what is left of a container that ended."""

from pathlib import Path
from typing import Any

import pytest

from common.errors import Terminal
from spherelet import files, termination
from spherelet.model import ContainerState, Exit, PodView
from spherelet.server import app


def a_pod(status: dict[str, Any] | None = None, **spec: Any) -> PodView:
    metadata = {"uid": "u", "name": "web-0", "namespace": "shop"}
    return PodView({"metadata": metadata, "spec": {"containers": [], **spec}, "status": status or {}})


def attempt(directory: Path, number: int = 0) -> ContainerState:
    ended = Exit(1, 2.0, "Error")
    return ContainerState("u", "main", number, f"id{number}", directory, "i", "r", "", 0.0, started_at=1.0, exit=ended)


def test_the_kernel_knows_the_full_name_only_if_asked() -> None:
    assert files.kernel_hostname(a_pod(subdomain="web"), "host-1", "cluster.local") == "web-0"
    full = a_pod(subdomain="web", setHostnameAsFQDN=True)
    assert files.kernel_hostname(full, "host-1", "cluster.local") == "web-0.web.shop.svc.cluster.local"
    assert files.kernel_hostname(a_pod(setHostnameAsFQDN=True), "host-1", "cluster.local") == "web-0"
    with pytest.raises(Terminal, match="64 characters is the max"):
        files.kernel_hostname(full, "host-1", "x" * 60)


def test_a_failed_container_without_a_message_leaves_the_end_of_its_log(tmp_path: Path) -> None:
    spec = {"name": "main", "terminationMessagePolicy": "FallbackToLogsOnError"}
    lines = [f"2026-01-01T00:00:00.0+00:00 stdout F line {number}" for number in range(200)]
    lines += ["2026-01-01T00:00:00.0+00:00 stderr P one ", "2026-01-01T00:00:00.0+00:00 stderr F sentence"]
    (tmp_path / "log").write_text("\n".join(lines) + "\n")
    said = termination.message(a_pod(containers=[spec]), attempt(tmp_path))
    assert said.startswith("line 121\n")
    assert said.endswith("line 199\none sentence\n")
    assert termination.message(a_pod(containers=[{"name": "main"}]), attempt(tmp_path)) == ""


def test_previous_means_what_the_status_shows_as_the_last_end(tmp_path: Path) -> None:
    attempts = (attempt(tmp_path, 0), attempt(tmp_path, 1))

    def shown(number: int) -> PodView:
        last = {"terminated": {"containerID": f"sphere://id{number}"}}
        return a_pod({"containerStatuses": [{"name": "main", "state": {}, "lastState": last}]})

    crashed = app.previous_attempt(shown(1), "main", attempts)
    assert crashed is attempts[1], "while it backs off, the newest attempt is the one that ended"
    assert app.previous_attempt(shown(0), "main", attempts) is attempts[0]
    assert app.previous_attempt(a_pod(), "main", attempts) is attempts[0]
    assert app.previous_attempt(a_pod(), "main", attempts[:1]) is None


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ImagePullBackOff", "trying and failing to pull image"),
        ("CreateContainerConfigError", "CreateContainerConfigError"),
        ("PodInitializing", "PodInitializing"),
        (None, "ContainerCreating"),
    ],
)
def test_why_there_is_no_log_yet(reason: str | None, words: str) -> None:
    state = {"waiting": {"reason": reason}} if reason else {}
    pod = a_pod({"containerStatuses": [{"name": "main", "state": state}]})
    assert app.waiting_reason(pod, "main") == words

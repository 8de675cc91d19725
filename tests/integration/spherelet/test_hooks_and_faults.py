"""Hooks, and what a host cannot do for a while: one pod's trouble is nobody else's."""

import errno
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import Retryable
from spherelet import observed

pytestmark = pytest.mark.integration
Object = dict[str, Any]
STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def world() -> Any:
    return sys.modules["world"]


def ready(host: Any, name: str) -> bool:
    conditions = host.api.status(name).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def log_of(host: Any, name: str, attempt: int = 0) -> str:
    uid = host.api.pods[name]["metadata"]["uid"]
    path = host.config.state_dir / "pods" / uid / "containers/main" / str(attempt) / "log"
    return str(path.read_text()) if path.exists() else ""


def listeners(pid: int) -> str:
    return Path(f"/proc/{pid}/net/tcp").read_text() + Path(f"/proc/{pid}/net/tcp6").read_text()


async def test_an_http_hook_goes_out_in_the_pods_own_network(host: Any) -> None:
    w = world()
    script = "printf 'HTTP/1.1 500 Sorry\\r\\n\\r\\n' | nc -l -p 8080; echo heard; " + STAY
    hook = {"lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/hello"}}}}
    ports = {"ports": [{"name": "http", "containerPort": 8080}]}
    # The loopback of this test's network has nobody at that port: only the pod's own has.
    pod = w.pod("hooked", "sh", "-c", script, container={**hook, **ports})
    pod["metadata"]["finalizers"] = ["example.com/keeps-the-log"]
    host.api.create(pod)
    await w.eventually(lambda: ready(host, "hooked"))
    pid = next(iter(host.loop.ports.runtime.running())).pid
    await w.eventually(lambda: ":1F90 " in listeners(pid), what="nc listens at 8080")
    host.api.delete("hooked", 5)
    await w.eventually(lambda: "terminated" in host.api.status("hooked")["containerStatuses"][0]["state"])
    assert "GET /hello" in log_of(host, "hooked")
    assert "heard" in log_of(host, "hooked")
    assert "FailedPreStopHook" not in host.api.reasons("hooked"), "an answer is an answer"


async def test_a_pod_whose_runtime_this_host_lacks_waits_and_can_be_deleted(host: Any) -> None:
    w = world()
    host.api.runtime_handlers["micro"] = "kata"
    host.api.create(w.pod("odd", "sleep", "1d", runtimeClassName="micro"))

    def waiting() -> Object:
        statuses = host.api.status("odd").get("containerStatuses") or [{"state": {}}]
        return statuses[0]["state"].get("waiting") or {}

    await w.eventually(lambda: waiting().get("reason") == "CreateContainerConfigError")
    assert 'no runtime for "kata"' in waiting()["message"]
    host.api.delete("odd", 0)
    await w.eventually(lambda: "odd" not in host.api.pods)


async def test_a_container_is_deleted_though_its_runtime_is_gone(host: Any) -> None:
    w = world()
    host.api.runtime_handlers["fast"] = "crun"
    host.api.create(w.pod("left", "sleep", "1d", runtimeClassName="fast"))
    await w.eventually(lambda: ready(host, "left"))
    runtime = host.loop.ports.runtime
    (state,) = runtime.running()
    runtime._put(replace(state, handler="kata"))
    host.api.delete("left", 0)
    await w.eventually(lambda: "left" not in host.api.pods)


async def test_a_hook_of_a_container_that_is_gone_already_harms_nobody_else(host: Any) -> None:
    w = world()
    hook = {"lifecycle": {"postStart": {"exec": {"command": ["sleep", "1"]}}}}
    for number in range(4):
        host.api.create(w.pod(f"short{number}", "true", container=hook, restartPolicy="Never"))
    host.api.create(w.pod("other", "sh", "-c", STAY))
    await w.eventually(lambda: ready(host, "other"))
    for number in range(4):
        await w.eventually(lambda n=number: host.api.status(f"short{n}").get("phase") in ("Succeeded", "Failed"))
    host.api.create(w.pod("later", "sh", "-c", STAY))
    await w.eventually(lambda: ready(host, "later"), what="the loop still runs")


async def test_a_full_disk_is_waited_for(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    w = world()
    real = observed.write_json
    full = True

    def write(path: Path, value: Any) -> None:
        if full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, value)

    monkeypatch.setattr(observed, "write_json", write)
    host.api.create(w.pod("patient", "sh", "-c", STAY))
    uid = host.api.pods["patient"]["metadata"]["uid"]
    await w.eventually(lambda: uid in host.loop.records)
    full = False
    await w.eventually(lambda: ready(host, "patient"), what="it runs as soon as there is room")


async def test_what_failed_for_want_of_something_is_tried_when_that_comes(
    host: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = world()
    there = threading.Event()
    setup = w.EmptyVolumes.setup

    async def wanting(self: Any, pod: Object, pod_dir: Path, images: Object) -> Any:
        if not there.is_set():
            raise Retryable('configmap "late" not found')
        return await setup(self, pod, pod_dir, images)

    monkeypatch.setattr(w.EmptyVolumes, "setup", wanting)
    host.api.create(w.pod("waiting", "sh", "-c", STAY))
    uid = host.api.pods["waiting"]["metadata"]["uid"]
    await w.eventually(lambda: uid in host.loop.records and host.loop.records[uid].volumes_failure)
    record = host.loop.records[uid]
    record.volumes_failure = observed.Failure("FailedMount", "far away", host.loop.clock.now() + 600)
    there.set()
    host.loop.retry(uid)
    await w.eventually(lambda: ready(host, "waiting"), timeout_s=10)

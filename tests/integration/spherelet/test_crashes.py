"""spherelet dies at any step of create or delete; the next one finishes or removes what is half-made."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def world() -> Any:
    return sys.modules["world"]


def ready(host: Any, name: str) -> bool:
    conditions = host.api.status(name).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.mark.parametrize("milliseconds", [2, 5, 10, 15, 20, 30, 40, 50])
async def test_death_during_create_then_run(host: Any, milliseconds: int) -> None:
    w = world()
    host.api.create(w.pod("cut", "sleep", "3600"))
    await asyncio.sleep(milliseconds / 1000)
    await host.stop()
    await host.start()
    await w.eventually(lambda: ready(host, "cut"), timeout_s=20)
    assert host.api.status("cut")["containerStatuses"][0]["restartCount"] == 0
    host.api.delete("cut", 1)
    await w.eventually(lambda: not host.loop.records and "cut" not in host.api.pods)
    assert w.census(host.directory, host.config.cgroup_parent) == []


@pytest.mark.parametrize("milliseconds", [3, 8, 15, 25, 35, 50])
async def test_death_during_create_then_gone(host: Any, milliseconds: int) -> None:
    w = world()
    pod = host.api.create(w.pod("cut", "sleep", "3600", terminationGracePeriodSeconds=0))
    await asyncio.sleep(milliseconds / 1000)
    await host.stop()
    host.api.put(pod, "DELETED")
    asked = any(each["op"] == "add" for each in host.agent.calls)
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync and not host.loop.records, timeout_s=20)
    assert w.census(host.directory, host.config.cgroup_parent) == []
    if asked:
        assert host.agent.calls[-1]["op"] == "del"


@pytest.mark.parametrize("milliseconds", [2, 10, 20, 40])
async def test_death_during_delete(host: Any, milliseconds: int) -> None:
    w = world()
    host.api.create(w.pod("cut", "sleep", "3600"))
    await w.eventually(lambda: ready(host, "cut"))
    host.api.delete("cut", 0)
    await asyncio.sleep(milliseconds / 1000)
    await host.stop()
    await host.start()
    await w.eventually(lambda: "cut" not in host.api.pods and not host.loop.records, timeout_s=20)
    assert w.census(host.directory, host.config.cgroup_parent) == []


async def reboot(host: Any) -> None:
    """What a restart of the machine does: processes, mounts and cgroups are gone, files stay."""
    w = world()
    states = list(host.loop.ports.runtime.running())
    await host.stop()
    for each in states:
        for pid in (each.conmon_pid, each.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await w.eventually(lambda: not any(Path(f"/proc/{each.pid}").exists() for each in states))
    for path in w.mounts.below(host.config.state_dir):
        w.mounts.unmount(path)
    await w.eventually(lambda: w._sweep_cgroups(host.config.cgroup_parent))
    await host.start()


async def test_after_a_restart_of_the_host_init_containers_run_before_the_others(host: Any) -> None:
    w = world()
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    volumes = [{"name": "work", "emptyDir": {}}]
    pod = w.pod("up", "sh", "-c", "echo main >> /work/log; exec sleep 3600", container=mount, volumes=volumes)
    script = "echo init >> /work/log"
    pod["spec"]["initContainers"] = [{"name": "init", "image": w.NAME, "command": ["sh", "-c", script], **mount}]
    host.api.create(pod)
    await w.eventually(lambda: ready(host, "up"))
    log = host.config.state_dir / "pods" / pod["metadata"]["uid"] / "volumes/work/log"
    await w.eventually(lambda: log.read_text().split() == ["init", "main"])
    await reboot(host)
    await w.eventually(lambda: log.read_text().split() == ["init", "main"] * 2, what="both ran again, in order")
    await w.eventually(lambda: ready(host, "up"))
    status = host.api.status("up")
    assert status["initContainerStatuses"][0]["restartCount"] == 1
    assert status["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    await host.stop()
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync)
    assert log.read_text().split() == ["init", "main"] * 2, "a restart of spherelet alone runs nothing again"
    host.api.delete("up", 1)
    await w.eventually(lambda: "up" not in host.api.pods and not host.loop.records)
    assert w.census(host.directory, host.config.cgroup_parent) == []

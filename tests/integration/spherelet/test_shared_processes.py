"""Processes that see each other: shared PID namespaces, ephemeral containers; and pods that a host must not run."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from spherelet.runtime import cgroups

pytestmark = pytest.mark.integration
Object = dict[str, Any]
STAY = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def world() -> Any:
    return sys.modules["world"]


def ready(host: Any, name: str) -> bool:
    conditions = host.api.status(name).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def log_of(host: Any, name: str, container: str = "main", attempt: int = 0) -> str:
    uid = host.api.pods[name]["metadata"]["uid"]
    path = host.config.state_dir / "pods" / uid / "containers" / container / str(attempt) / "log"
    return str(path.read_text()) if path.exists() else ""


def text(*path: str) -> str:
    return Path(*path).read_text()


def names(*path: str) -> Sequence[str]:
    return sorted(each.name for each in Path(*path).iterdir())


async def removed(host: Any, name: str) -> None:
    w = world()
    host.api.delete(name, 1)
    await w.eventually(lambda: name not in host.api.pods and not host.loop.records, what=f"{name} is gone")
    assert w.census(host.directory, host.config.cgroup_parent) == []


async def test_containers_share_processes_and_orphans_are_reaped(host: Any) -> None:
    w = world()
    # An orphan whose parent is in another container: only the first process of the namespace can inherit it.
    script = "(sleep 0.2 & echo orphan) ; sleep 0.6; ps -o pid,stat,args; echo listed; exec sleep 3600"
    pod = w.pod("shared", "sh", "-c", script, shareProcessNamespace=True)
    pod["spec"]["containers"].append({"name": "other", "image": w.NAME, "command": ["sleep", "4711"]})
    host.api.create(pod)
    await w.eventually(lambda: ready(host, "shared"))
    await w.eventually(lambda: "listed" in log_of(host, "shared"))
    seen = log_of(host, "shared")
    assert "/pause" in next(line for line in seen.splitlines() if " 1 S" in line), seen
    assert "sleep 4711" in seen
    assert " Z " not in seen, "nothing reaped the orphan"
    shown = {each["name"] for each in host.api.status("shared")["containerStatuses"]}
    assert shown == {"main", "other"}, "the pause container is nobody's business"
    told = {each["involvedObject"].get("fieldPath", "") for each in host.api.events}
    assert not any("pause" in each for each in told)
    await removed(host, "shared")


async def test_what_a_container_leaves_in_a_shared_namespace_ends_with_it(host: Any) -> None:
    w = world()
    pod = w.pod("littered", "sh", "-c", "sleep 4712 & exit 3", shareProcessNamespace=True, restartPolicy="Never")
    pod["spec"]["containers"].append({"name": "other", "image": w.NAME, "command": ["sh", "-c", STAY]})
    host.api.create(pod)
    uid = pod["metadata"]["uid"]

    def reaped() -> bool:
        state = host.loop.ports.runtime.container(uid, "main")
        return state is not None and state.reaped

    await w.eventually(reaped, what="main has ended")
    await w.eventually(lambda: host.loop.ports.runtime.container(uid, "other").pid)
    state = host.loop.ports.runtime.container(uid, "main")
    assert cgroups.processes(state.cgroup) == []
    await removed(host, "littered")


async def test_a_pause_process_has_no_power_and_no_files(host: Any) -> None:
    w = world()
    host.api.create(w.pod("weak", "sh", "-c", STAY, shareProcessNamespace=True))
    await w.eventually(lambda: ready(host, "weak"))
    uid = host.api.pods["weak"]["metadata"]["uid"]
    pause = host.loop.ports.runtime.container(uid, "_pause")
    status = dict(line.split(":\t", 1) for line in text(f"/proc/{pause.pid}/status").splitlines() if ":\t" in line)
    assert int(status["CapBnd"], 16) == 0
    assert status["Uid"].split()[0] == "65535"
    inside = names(f"/proc/{pause.pid}/root")
    assert "pause" in inside
    assert "bin" not in inside
    await removed(host, "weak")


async def test_shared_processes_survive_spherelet_and_a_lost_pause_is_replaced(host: Any) -> None:
    w = world()
    host.api.create(w.pod("kept", "sh", "-c", STAY, shareProcessNamespace=True))
    await w.eventually(lambda: ready(host, "kept"))
    uid = host.api.pods["kept"]["metadata"]["uid"]
    before = host.loop.ports.runtime.container(uid, "main")
    await host.stop()
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync)
    assert host.loop.ports.runtime.container(uid, "main").pid == before.pid
    host.loop.ports.runtime.signal(host.loop.ports.runtime.container(uid, "_pause"), 9)
    await w.eventually(lambda: host.loop.ports.runtime.container(uid, "main").attempt == 1, what="main runs again")
    await w.eventually(lambda: ready(host, "kept") and host.loop.ports.runtime.container(uid, "main").running)
    assert host.api.status("kept")["containerStatuses"][0]["restartCount"] == 1
    await removed(host, "kept")


async def test_an_ephemeral_container_looks_into_its_target(host: Any) -> None:
    w = world()
    pod = host.api.create(w.pod("target", "sh", "-c", "echo $0 $1; " + STAY, "zero", "one"))
    await w.eventually(lambda: ready(host, "target"))
    before = host.api.status("target")["containerStatuses"][0]
    pod["spec"]["ephemeralContainers"] = [
        {
            "name": "debug",
            "image": w.NAME,
            "command": ["sh", "-c", "ps -o pid,args; echo listed; exit 3"],
            "targetContainerName": "main",
        }
    ]
    host.api.put(pod)
    found = await w.eventually(
        lambda: [
            each["state"]["terminated"]
            for each in host.api.status("target").get("ephemeralContainerStatuses") or ()
            if "terminated" in each["state"]
        ]
    )
    assert (found[0]["exitCode"], found[0]["reason"]) == (3, "Error")
    assert "zero one" in log_of(host, "target", "debug"), "it sees the processes of its target"
    assert host.api.status("target")["phase"] == "Running"
    assert host.api.status("target")["containerStatuses"][0] == before
    assert ready(host, "target")
    await w.eventually(
        lambda: any(
            each["involvedObject"].get("fieldPath") == "spec.ephemeralContainers{debug}" for each in host.api.events
        )
    )
    await removed(host, "target")


async def test_an_ephemeral_container_outlasts_a_restart_and_ends_with_its_pod(host: Any) -> None:
    w = world()
    pod = host.api.create(w.pod("long", "sh", "-c", STAY))
    await w.eventually(lambda: ready(host, "long"))
    pod["spec"]["ephemeralContainers"] = [{"name": "debug", "image": w.NAME, "command": ["sleep", "3600"]}]
    host.api.put(pod)

    def running() -> list[Object]:
        found = host.api.status("long").get("ephemeralContainerStatuses") or ()
        return [each for each in found if "running" in each["state"]]

    before = await w.eventually(running)
    await host.stop()
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync)
    assert running() == before
    await removed(host, "long")


async def test_a_new_image_restarts_the_container(host: Any) -> None:
    w = world()
    pod = host.api.create(w.pod("moved", "sh", "-c", STAY))
    await w.eventually(lambda: ready(host, "moved"))
    pod["spec"]["containers"][0]["image"] = "library/busybox:latest"  # another name of the image that is there
    host.api.put(pod)
    await w.eventually(
        lambda: host.api.status("moved")["containerStatuses"][0]["restartCount"] == 1 and ready(host, "moved")
    )
    assert host.api.status("moved")["containerStatuses"][0]["image"] == "library/busybox:latest"
    await w.eventually(lambda: "Killing" in host.api.reasons("moved"))
    await removed(host, "moved")


async def test_a_parameter_of_the_whole_host_is_refused_and_untouched(host: Any) -> None:
    w = world()
    before = text("/proc/sys/kernel/core_pattern")
    sysctls = {"sysctls": [{"name": "kernel.core_pattern", "value": "|/tmp/never"}]}
    host.api.create(w.pod("evil", "sleep", "1", securityContext=sysctls))
    await w.eventually(lambda: host.api.status("evil").get("reason") == "SysctlForbidden")
    assert host.api.status("evil")["phase"] == "Failed"
    assert text("/proc/sys/kernel/core_pattern") == before
    await w.eventually(lambda: "SysctlForbidden" in host.api.reasons("evil"))
    sysctls = {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"}]}
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"
    host.api.create(w.pod("fine", "sh", "-c", script, securityContext=sysctls, restartPolicy="Never"))
    await w.eventually(lambda: host.api.status("fine").get("phase") == "Succeeded")
    assert log_of(host, "fine").split()[-1] == "80"
    assert "1024" in text("/proc/sys/net/ipv4/ip_unprivileged_port_start")


async def test_a_deleted_pod_that_others_hold_on_to_shows_its_end(host: Any) -> None:
    w = world()
    pod = w.pod("held", "sh", "-c", STAY)
    pod["metadata"]["finalizers"] = ["example.com/hold"]
    host.api.create(pod)
    await w.eventually(lambda: ready(host, "held"))
    host.api.delete("held", 2)
    await w.eventually(lambda: [each for each in host.api.status_writes["held"] if each["phase"] == "Succeeded"])


async def test_a_confined_container_makes_no_namespaces(host: Any) -> None:
    w = world()
    # As root with the default capabilities, a user namespace would be the way to all of them.
    script = "unshare -U true && echo made; (echo forked); mount -t tmpfs x /mnt && echo mounted; echo end"
    confined = {"seccompProfile": {"type": "RuntimeDefault"}, "allowPrivilegeEscalation": False}
    container = {"securityContext": confined}
    host.api.create(w.pod("confined", "sh", "-c", script, container=container, restartPolicy="Never"))
    await w.eventually(lambda: host.api.status("confined").get("phase") == "Succeeded")
    said = log_of(host, "confined")
    assert "forked" in said
    assert "end" in said
    assert "made" not in said
    assert "mounted" not in said


async def test_a_running_container_is_given_other_resources(host: Any) -> None:
    w = world()

    def resources(cpu: str, memory: str) -> Object:
        return {"requests": {"cpu": "10m"}, "limits": {"cpu": cpu, "memory": memory}}

    pod = host.api.create(w.pod("grown", "sh", "-c", STAY, container={"resources": resources("500m", "32Mi")}))
    await w.eventually(lambda: ready(host, "grown"))
    state = next(iter(host.loop.ports.runtime.running()))

    def memory_limit(path: str) -> int:
        v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        name = f"/sys/fs/cgroup{path}/memory.max" if v2 else f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"
        return int(text(name))

    assert memory_limit(state.cgroup) == 32 << 20
    for memory in ("64Mi", "16Mi"):
        pod["spec"]["containers"][0]["resources"] = resources("250m", memory)
        host.api.put(pod)
        wanted = {"cpu": "250m", "memory": memory}
        await w.eventually(
            lambda w=wanted: host.api.status("grown")["containerStatuses"][0]["resources"]["limits"] == w
        )
        assert memory_limit(state.cgroup) == int(memory.removesuffix("Mi")) << 20
        assert memory_limit(str(Path(state.cgroup).parent)) == int(memory.removesuffix("Mi")) << 20
    assert host.api.status("grown")["containerStatuses"][0]["restartCount"] == 0
    assert next(iter(host.loop.ports.runtime.running())).pid == state.pid
    await host.stop()
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync)
    assert memory_limit(state.cgroup) == 16 << 20
    await removed(host, "grown")

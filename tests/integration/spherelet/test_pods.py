"""Pods end to end on one host: real images, namespaces, conmon and crun."""

import sys
from typing import Any

import pytest

pytestmark = pytest.mark.integration
Object = dict[str, Any]


def world() -> Any:
    return sys.modules["world"]


def ready(host: Any, name: str) -> bool:
    conditions = host.api.status(name).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def log_of(host: Any, name: str, container: str = "main", attempt: int = 0) -> str:
    uid = host.api.pods[name]["metadata"]["uid"]
    path = host.config.state_dir / "pods" / uid / "containers" / container / str(attempt) / "log"
    return str(path.read_text()) if path.exists() else ""


async def test_a_pod_runs_and_leaves_nothing(host: Any) -> None:
    w = world()
    host.api.create(
        w.pod("web", "sh", "-c", "echo hello; hostname; cat /etc/hosts; trap 'exit 0' TERM; while :; do sleep 1; done")
    )
    await w.eventually(lambda: ready(host, "web"), what="web is Ready")
    status = host.api.status("web")
    assert status["phase"] == "Running"
    assert status["podIP"] == "127.0.0.1"
    assert status["qosClass"] == "BestEffort"
    main = status["containerStatuses"][0]
    assert main["containerID"].startswith("sphere://")
    assert main["restartCount"] == 0
    assert "startedAt" in main["state"]["running"]
    assert len(host.api.status_writes["web"]) == 1, "create to Ready takes one status write"
    await w.eventually(lambda: "hello" in log_of(host, "web"))
    assert "F web" in log_of(host, "web")
    host.api.delete("web")
    await w.eventually(lambda: "web" not in host.api.pods, what="web is gone")
    await w.eventually(lambda: not host.loop.records)
    assert w.census(host.directory, host.config.cgroup_parent) == []
    assert [each["op"] for each in host.agent.calls] == ["add", "drained", "del"]
    await w.eventually(lambda: {"Pulled", "Created", "Started", "Killing"} <= set(host.api.reasons("web")))


async def test_running_containers_survive_a_restart(host: Any) -> None:
    w = world()
    host.api.create(w.pod("stays", "sleep", "3600"))
    await w.eventually(lambda: ready(host, "stays"))
    before = host.api.status("stays")["containerStatuses"][0]
    pid = next(iter(host.loop.ports.runtime.running())).pid
    await host.stop()
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync)
    state = next(iter(host.loop.ports.runtime.running()))
    assert state.pid == pid
    assert host.api.status("stays")["containerStatuses"][0] == before
    host.api.delete("stays", grace_s=1)
    await w.eventually(lambda: "stays" not in host.api.pods)
    await w.eventually(lambda: not host.loop.records)
    assert w.census(host.directory, host.config.cgroup_parent) == []


async def test_a_pod_deleted_while_spherelet_was_dead_is_removed(host: Any) -> None:
    w = world()
    pod = host.api.create(w.pod("lost", "sleep", "3600", terminationGracePeriodSeconds=1))
    await w.eventually(lambda: ready(host, "lost"))
    await host.stop()
    host.api.put(pod, "DELETED")
    await host.start()
    await w.eventually(lambda: not host.loop.records, timeout_s=45)
    assert w.census(host.directory, host.config.cgroup_parent) == []


async def test_a_finished_pod_succeeds(host: Any) -> None:
    w = world()
    host.api.create(w.pod("job", "sh", "-c", "echo done > /dev/termination-log", restartPolicy="Never"))
    await w.eventually(lambda: host.api.status("job").get("phase") == "Succeeded")
    ended = host.api.status("job")["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"].strip()) == (0, "Completed", "done")


async def test_a_crashing_container_backs_off(host: Any) -> None:
    w = world()
    host.api.create(w.pod("crash", "sh", "-c", "exit 7"))

    def waiting() -> str:
        statuses = host.api.status("crash").get("containerStatuses") or [{"state": {}}]
        return str((statuses[0]["state"].get("waiting") or {}).get("reason"))

    await w.eventually(lambda: waiting() == "CrashLoopBackOff")
    main = host.api.status("crash")["containerStatuses"][0]
    assert main["restartCount"] == 1
    assert main["lastState"]["terminated"]["exitCode"] == 7
    await w.eventually(lambda: "BackOff" in host.api.reasons("crash"))


async def test_init_containers_run_in_order(host: Any) -> None:
    w = world()
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/work"}]}
    script = "cat /work/order; sleep 3600"
    pod = w.pod("staged", "sh", "-c", script, container=mount, volumes=[{"name": "work", "emptyDir": {}}])
    pod["spec"]["initContainers"] = [
        {"name": f"init-{n}", "image": w.NAME, "command": ["sh", "-c", f"echo {n} >> /work/order"], **mount}
        for n in (1, 2)
    ]
    host.api.create(pod)
    await w.eventually(lambda: ready(host, "staged"))
    await w.eventually(lambda: log_of(host, "staged").count(" F ") == 2)
    assert [line.split()[-1] for line in log_of(host, "staged").splitlines()] == ["1", "2"]


async def test_a_missing_image_says_why(host: Any) -> None:
    w = world()
    host.api.create(w.pod("noimage", "true", container={"image": "127.0.0.1:1/no/such:tag"}))
    host.api.create(w.pod("badname", "true", container={"image": "Bad Name"}))

    def waiting(name: str) -> Object:
        statuses = host.api.status(name).get("containerStatuses") or [{"state": {}}]
        found: Object = statuses[0]["state"].get("waiting") or {}
        return found

    await w.eventually(lambda: waiting("noimage").get("reason") == "ImagePullBackOff")
    assert "connection refused" in waiting("noimage")["message"]
    await w.eventually(lambda: waiting("badname").get("reason") == "InvalidImageName")
    await w.eventually(lambda: {"Pulling", "Failed", "BackOff"} <= set(host.api.reasons("noimage")))


async def test_a_missing_command_says_why(host: Any) -> None:
    w = world()
    host.api.create(w.pod("nocommand", "/no/such/binary"))

    def before() -> Object:
        statuses = host.api.status("nocommand").get("containerStatuses") or [{"lastState": {}}]
        found: Object = statuses[0]["lastState"].get("terminated") or {}
        return found

    await w.eventually(lambda: "/no/such/binary" in before().get("message", ""))
    assert (before()["reason"], before()["exitCode"]) == ("StartError", 128)
    await w.eventually(lambda: "Failed" in host.api.reasons("nocommand"))
    host.api.delete("nocommand")
    await w.eventually(lambda: "nocommand" not in host.api.pods)
    await w.eventually(lambda: not host.loop.records)
    assert w.census(host.directory, host.config.cgroup_parent) == []


async def test_a_missing_command_that_is_not_to_be_restarted_fails_the_pod(host: Any) -> None:
    w = world()
    host.api.create(w.pod("once", "/no/such/binary", restartPolicy="Never"))
    await w.eventually(lambda: host.api.status("once").get("phase") == "Failed", what="it is not tried for ever")
    assert host.api.status("once")["containerStatuses"][0]["state"]["terminated"]["reason"] == "StartError"


async def test_sigterm_then_sigkill(host: Any) -> None:
    w = world()
    host.api.create(w.pod("deaf", "sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
    await w.eventually(lambda: ready(host, "deaf"))
    host.api.delete("deaf", grace_s=1)
    await w.eventually(lambda: "deaf" not in host.api.pods, timeout_s=10)


async def test_out_of_memory_is_reported(host: Any) -> None:
    w = world()
    limits = {"resources": {"limits": {"memory": "16Mi"}}}
    script = "x=a; while :; do x=$x$x; done"
    host.api.create(w.pod("hungry", "sh", "-c", script, container=limits, restartPolicy="Never"))
    await w.eventually(lambda: host.api.status("hungry").get("phase") == "Failed", timeout_s=30)
    ended = host.api.status("hungry")["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)

"""What is done next, as tables: one pod, one moment, the actions that may be started."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.clock import rfc3339
from spherelet import lifecycle
from spherelet.lifecycle import Stage
from spherelet.model import (
    PAUSE,
    ContainerState,
    ContainerView,
    Exit,
    Failure,
    Image,
    Observed,
    PodView,
    PullImage,
    Role,
    Sandbox,
    StopContainer,
    Wait,
)
from spherelet.plan import next_backoff_s, plan

NOW = 1000.0
IMAGE = Image(id="sha256:1", reference="r", layers=("/l",))
READY = Observed(
    sandbox=Sandbox(True, "10.0.0.1", True, NOW),
    volumes={},
    images={"main": IMAGE, "init": IMAGE, "side": IMAGE},
    on_disk=True,
)


def a_pod(**spec: Any) -> PodView:
    metadata = {"uid": "u", "name": "p", "namespace": "n", **spec.pop("metadata", {})}
    return PodView({"metadata": metadata, "spec": {"containers": [{"name": "main", "image": "i"}], **spec}})


def attempt(name: str = "main", number: int = 0, **fields: Any) -> ContainerState:
    return ContainerState("u", name, number, f"{name}{number}", Path("/d"), "i", "r", "", NOW, **fields)


def running(name: str = "main", number: int = 0) -> ContainerState:
    return attempt(name, number, started_at=NOW - 10, pid=5, conmon_pid=4)


def ended(name: str = "main", number: int = 0, code: int = 1, at: float = NOW, **fields: Any) -> ContainerState:
    values = {"started_at": at - 1, "exit": Exit(code, at, "Error"), "reaped": True, **fields}
    return attempt(name, number, **values)


def having(*states: ContainerState, **fields: Any) -> Observed:
    found: dict[str, tuple[ContainerState, ...]] = {}
    for each in states:
        found[each.name] = (*found.get(each.name, ()), each)
    return replace(READY, containers=found, **fields)


def keys(want: PodView | None, seen: Observed, now: float = NOW) -> list[str]:
    return [f"{type(each).__name__}:{getattr(each, 'container', '')}" for each in plan(want, seen, now)]


def test_everything_that_can_overlap_is_started_at_once() -> None:
    assert keys(a_pod(), Observed()) == ["PrepareSandbox:", "SetupVolumes:", "PullImage:main"]


def test_volumes_wait_for_the_images_that_they_show() -> None:
    want = a_pod(volumes=[{"name": "art", "image": {"reference": "r", "pullPolicy": "Always"}}])
    assert keys(want, Observed()) == ["PrepareSandbox:", "PullImage:volume/art", "PullImage:main"]
    (pull,) = [each for each in plan(want, replace(READY, volumes=None), NOW) if isinstance(each, PullImage)]
    assert (pull.image, pull.policy) == ("r", "Always")
    (again,) = [each for each in plan(want, having(running(), volumes=None), NOW) if isinstance(each, PullImage)]
    assert again.policy == "IfNotPresent", "containers have seen the one that is here"
    there = replace(READY, volumes=None, images={**READY.images, "volume/art": IMAGE})
    assert keys(want, there) == ["SetupVolumes:"]
    missing = {"volume/art": Failure("ErrImagePull", "m", NOW + 5)}
    assert plan(want, replace(READY, volumes=None, image_failures=missing), NOW) == (Wait(5.0),)


def test_what_is_busy_is_not_started_again() -> None:
    assert keys(a_pod(), Observed(busy=frozenset({"sandbox", "volumes", "pull:main"}))) == []


def test_creation_does_not_wait_for_clearance_but_the_start_does() -> None:
    waiting = replace(READY, sandbox=Sandbox(True, "", False, NOW))
    assert keys(a_pod(), waiting) == ["AddNetwork:", "CreateContainer:main"]
    created = replace(waiting, containers={"main": (attempt(pid=5),)}, busy=frozenset({"network"}))
    assert keys(a_pod(), created) == []
    assert keys(a_pod(), replace(created, sandbox=READY.sandbox, busy=frozenset())) == ["StartContainer:main"]


@pytest.mark.parametrize("path", ["status.podIP", "status.podIPs"])
def test_a_container_that_shows_the_address_waits_for_it(path: str) -> None:
    shows = {"name": "main", "image": "i", "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": path}}}]}
    waiting = replace(READY, sandbox=Sandbox(True, "", False, NOW))
    assert keys(a_pod(containers=[shows]), waiting) == ["AddNetwork:"]
    assert keys(a_pod(containers=[shows]), READY) == ["CreateContainer:main"]


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        ("Always", 0, ["CreateContainer:main"]),
        ("Always", 1, ["CreateContainer:main"]),
        ("OnFailure", 1, ["CreateContainer:main"]),
        ("OnFailure", 0, ["ReleaseSandbox:"]),
        ("Never", 1, ["ReleaseSandbox:"]),
        ("Never", 0, ["ReleaseSandbox:"]),
    ],
)
def test_restart_policy(policy: str, code: int, expected: list[str]) -> None:
    assert keys(a_pod(restartPolicy=policy), having(ended(code=code))) == expected


def test_a_crashing_container_waits_and_the_wait_doubles() -> None:
    crashed = ended(number=1, backoff_s=10.0)
    (wait,) = plan(a_pod(), having(crashed), NOW + 4)
    assert wait == Wait(6.0)
    assert keys(a_pod(), having(crashed), NOW + 10) == ["CreateContainer:main"]
    assert [next_backoff_s(ended(backoff_s=each)) for each in (0.0, 10.0, 160.0, 300.0)] == [10.0, 20.0, 300.0, 300.0]
    long_run = ended(backoff_s=300.0, started_at=NOW - 601)
    assert next_backoff_s(long_run) == 10.0
    assert keys(a_pod(), having(long_run)) == ["CreateContainer:main"]


def test_an_attempt_that_never_ran_is_removed_and_made_again() -> None:
    unborn = ended(started_at=0.0)
    assert keys(a_pod(), having(unborn)) == ["RemoveContainer:main"]
    failed = {"main": Failure("CreateContainerError", "x", NOW + 3)}
    assert plan(a_pod(), replace(READY, container_failures=failed), NOW) == (Wait(3.0),)


def test_an_ended_container_is_reaped_before_its_successor_is_made() -> None:
    assert keys(a_pod(), having(ended(reaped=False))) == ["ReapContainer:main"]


def test_only_the_last_two_attempts_are_kept() -> None:
    seen = having(ended(number=0), ended(number=1), running(number=2))
    assert keys(a_pod(), seen) == ["RemoveContainer:main"]


def test_init_containers_come_first_and_one_by_one() -> None:
    want = a_pod(initContainers=[{"name": "init", "image": "i"}])
    assert keys(want, READY) == ["CreateContainer:init"]
    assert keys(want, having(running("init"))) == []
    assert keys(want, having(ended("init", code=0))) == ["CreateContainer:main"]


def test_init_containers_run_again_in_a_sandbox_made_anew() -> None:
    want = a_pod(initContainers=[{"name": "init", "image": "i"}])
    lost = ended(code=137)
    again = replace(having(ended("init", code=0), lost), sandbox=Sandbox(True, "10.0.0.1", True, NOW, epoch=1))
    assert keys(want, again) == ["CreateContainer:init"]
    done = {**again.containers, "init": (ended("init", 1, code=0, epoch=1),)}
    assert keys(want, replace(again, containers=done)) == ["CreateContainer:main"]
    settled = {**done, "main": (lost, replace(running(number=1), epoch=1))}
    assert keys(want, replace(again, containers=settled)) == []
    over = a_pod(initContainers=[{"name": "init", "image": "i"}], restartPolicy="Never")
    assert keys(over, again) == ["ReleaseSandbox:"], "what may not run again needs no preparation"


def test_a_sidecar_must_have_started_and_is_restarted_for_ever() -> None:
    want = a_pod(initContainers=[{"name": "side", "image": "i", "restartPolicy": "Always"}], restartPolicy="Never")
    assert keys(want, READY) == ["CreateContainer:side"]
    assert keys(want, having(running("side"))) == ["CreateContainer:main"]
    assert keys(want, having(ended("side"), running())) == ["CreateContainer:side"]


def test_a_failed_liveness_probe_stops_the_container() -> None:
    want = a_pod(containers=[{"name": "main", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}}])
    seen = having(running(), probes={("main0", "liveness"): False})
    assert keys(want, seen) == ["StopContainer:main"]


def test_deletion_drains_first_then_stops_then_releases() -> None:
    want = a_pod(metadata={"deletionTimestamp": "t", "deletionGracePeriodSeconds": 5})
    assert keys(want, having(running())) == ["Drain:"]
    (stop,) = plan(want, having(running(), drained=True), NOW)
    assert getattr(stop, "grace_s", None) == 5.0
    assert keys(want, having(ended(reaped=False), drained=True)) == ["ReapContainer:main"]
    assert keys(want, having(ended(), drained=True)) == ["ReleaseSandbox:"]
    gone = Observed(containers={"main": (ended(),)}, on_disk=True, drained=True)
    assert lifecycle.stage(want, gone, NOW) is Stage.ENDED
    assert keys(want, gone) == [], "the directory stays until the API has let the pod go"
    assert keys(None, gone) == ["RemovePod:"]


def test_deletion_abandons_what_no_longer_makes_sense_and_never_pulls_the_rug() -> None:
    want = a_pod(metadata={"deletionTimestamp": "t"})
    seen = replace(READY, busy=frozenset({"pull:main", "container:main"}))
    assert keys(want, seen) == ["Abandon:"]


def test_sidecars_end_last_one_by_one_and_within_the_pods_time() -> None:
    want = a_pod(
        initContainers=[{"name": each, "image": "i", "restartPolicy": "Always"} for each in ("side", "other")],
        metadata={"deletionTimestamp": rfc3339(NOW + 20), "deletionGracePeriodSeconds": 30},
    )
    alive = (running("side"), running("other"))
    assert keys(want, having(*alive, running(), drained=True)) == ["StopContainer:main"]
    (stop,) = plan(want, having(*alive, ended(), drained=True), NOW)
    assert stop == StopContainer("other", 0, 20.0, "")
    (stop,) = plan(want, having(running("side"), ended("other"), ended(), drained=True), NOW + 19)
    assert stop == StopContainer("side", 0, 2.0, "")


SHARING = {"shareProcessNamespace": True}


def test_a_shared_process_namespace_is_there_before_whoever_joins_it() -> None:
    waiting = replace(READY, sandbox=Sandbox(True, "", False, NOW), busy=frozenset({"network"}))
    assert keys(a_pod(**SHARING), waiting) == [f"CreateContainer:{PAUSE}"]
    made = replace(waiting, containers={PAUSE: (attempt(PAUSE, pid=5),)})
    assert keys(a_pod(**SHARING), made) == [f"StartContainer:{PAUSE}"], "it needs no network"
    assert keys(a_pod(**SHARING), having(running(PAUSE))) == ["CreateContainer:main"]
    assert keys(a_pod(**SHARING), having(ended(PAUSE), running())) == [f"CreateContainer:{PAUSE}"]
    ending = a_pod(**SHARING, restartPolicy="Never")
    assert keys(ending, having(running(PAUSE), ended(code=0))) == [f"StopContainer:{PAUSE}"]
    (stop,) = plan(None, having(running(PAUSE)), NOW)
    assert stop == StopContainer(PAUSE, 0, 0.0, "")


def test_an_ephemeral_container_runs_once_beside_the_others() -> None:
    want = a_pod(ephemeralContainers=[{"name": "debug", "image": "busybox"}])
    assert keys(want, having(running())) == ["PullImage:debug"]
    seen = having(running(), images={**READY.images, "debug": IMAGE})
    assert keys(want, seen) == ["CreateContainer:debug"]
    assert keys(want, having(running(), running("debug"))) == []
    assert keys(want, having(running(), ended("debug"))) == []
    assert lifecycle.outcome(want, having(ended(), running("debug")), NOW) is None
    done = a_pod(ephemeralContainers=[{"name": "debug", "image": "i"}], restartPolicy="Never")
    assert keys(done, having(ended(code=0), running("debug"))) == ["StopContainer:debug"]


def test_a_new_image_replaces_the_container_whatever_the_restart_policy() -> None:
    old = ContainerView(Role.MAIN, {"name": "main", "image": "old"}).spec_hash
    want = a_pod(restartPolicy="Never")
    alive = replace(running(), spec_hash=old)
    (stop,) = plan(want, having(alive), NOW)
    assert stop == StopContainer("main", 0, 30.0, "Container main definition changed, will be restarted")
    assert plan(want, having(alive, redefined_at=NOW - 0.25), NOW) == (Wait(0.75),), "several edits cost one restart"
    assert keys(want, having(ended(spec_hash=old, backoff_s=300.0))) == ["CreateContainer:main"]
    assert keys(want, having(replace(running(), spec_hash=want.main[0].spec_hash))) == []


def test_other_resources_are_given_to_the_running_container_unless_it_wants_a_restart() -> None:
    def wanting(memory: str, **container: Any) -> PodView:
        resources = {"requests": {"cpu": "100m"}, "limits": {"memory": memory}}
        return a_pod(containers=[{"name": "main", "image": "i", "resources": resources, **container}])

    before = having(replace(running(), resources=wanting("64Mi").main[0].resources))
    assert keys(wanting("64Mi"), before) == []
    assert keys(wanting("96Mi"), before) == ["ResizeContainer:main"]
    failed = {"main": Failure("ResizeError", "x", NOW + 3)}
    assert plan(wanting("96Mi"), replace(before, container_failures=failed), NOW) == (Wait(3.0),)
    restart = {"resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}
    (stop,) = plan(wanting("96Mi", **restart), before, NOW)
    assert stop == StopContainer("main", 0, 30.0, "Container main resize requires restart")
    other = {"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}
    assert keys(wanting("96Mi", **other), before) == ["ResizeContainer:main"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"os": {"name": "windows"}}, "PodOSNotSupported"),
        ({"securityContext": {"sysctls": [{"name": "kernel.core_pattern", "value": "|/x"}]}}, "SysctlForbidden"),
        ({"securityContext": {"sysctls": [{"name": "net/../kernel/core_pattern", "value": "x"}]}}, "SysctlForbidden"),
        (
            {"hostNetwork": True, "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}},
            "SysctlForbidden",
        ),
        (
            {"hostIPC": True, "securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}},
            "SysctlForbidden",
        ),
        ({"securityContext": {"appArmorProfile": {"type": "Localhost"}}}, "AppArmor"),
    ],
)
def test_what_reaches_past_the_pod_is_refused_before_anything_is_made(spec: dict[str, Any], reason: str) -> None:
    assert keys(a_pod(**spec), Observed()) == []
    outcome = lifecycle.outcome(a_pod(**spec), Observed(), NOW)
    assert outcome is not None
    assert outcome[:2] == ("Failed", reason)
    assert keys(a_pod(**spec), having(running())) == [], "what runs already is not ended by a new rule"


def test_safe_sysctls_are_welcome() -> None:
    context = {
        "sysctls": [{"name": "kernel/shm_rmid_forced", "value": "1"}, {"name": "net.ipv4.tcp_rmem", "value": "1"}]
    }
    assert lifecycle.outcome(a_pod(securityContext=context), Observed(), NOW) is None


def test_a_pod_that_was_done_before_its_deadline_has_succeeded() -> None:
    want = a_pod(activeDeadlineSeconds=5, restartPolicy="Never")
    done = having(ended(code=0, at=NOW + 4))
    assert lifecycle.outcome(want, done, NOW + 60) == ("Succeeded", "", "")
    killed = lifecycle.outcome(want, having(ended(code=137, at=NOW + 6)), NOW + 60)
    assert killed is not None
    assert killed[1] == "DeadlineExceeded"


def test_the_deadline_ends_a_pod() -> None:
    want = a_pod(activeDeadlineSeconds=5)
    assert keys(want, having(running()), NOW + 4)[-1] == "Wait:"
    assert keys(want, having(running()), NOW + 5) == ["StopContainer:main"]
    outcome = lifecycle.outcome(want, having(running()), NOW + 5)
    assert outcome is not None
    assert outcome[:2] == ("Failed", "DeadlineExceeded")

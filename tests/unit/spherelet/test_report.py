"""Statuses as Kubernetes defines them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from spherelet import report
from spherelet.model import ContainerState, Exit, Failure, Image, Observed, PodView, Sandbox
from spherelet.report import Surroundings

NOW = 1_000_000.0
AROUND = Surroundings("192.0.2.1", NOW - 5, NOW, {})
SEEN = Observed(sandbox=Sandbox(True, "10.0.0.1", True, NOW), volumes={}, images={"main": Image("i", "ref", ("/l",))})


def a_pod(status: dict[str, Any] | None = None, **spec: Any) -> PodView:
    body = {"metadata": {"uid": "u", "name": "p", "namespace": "n", "generation": 3}, "status": status or {}}
    return PodView({**body, "spec": {"containers": [{"name": "main", "image": "i"}], **spec}})


def attempt(number: int = 0, **fields: Any) -> ContainerState:
    return ContainerState("u", "main", number, f"id{number}", Path("/d"), "i", "ref", "", NOW, **fields)


def conditions(body: dict[str, Any]) -> dict[str, str]:
    return {each["type"]: each["status"] for each in body["conditions"]}


def test_a_running_pod_is_ready() -> None:
    body = report.status(a_pod(), replace(SEEN, containers={"main": (attempt(started_at=NOW),)}), AROUND)
    assert body["phase"] == "Running"
    assert set(conditions(body).values()) == {"True"}
    assert body["podIP"] == "10.0.0.1"
    assert body["podIPs"] == [{"ip": "10.0.0.1"}]
    assert body["hostIP"] == "192.0.2.1"
    assert body["observedGeneration"] == 3
    assert body["containerStatuses"][0]["containerID"] == "sphere://id0"


def test_an_unready_container_makes_the_pod_unready() -> None:
    want = a_pod(containers=[{"name": "main", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}])
    seen = replace(SEEN, containers={"main": (attempt(started_at=NOW),)})
    body = report.status(want, seen, AROUND)
    assert conditions(body)["Ready"] == "False"
    assert body["conditions"][2]["message"] == "containers with unready status: [main]"
    assert body["phase"] == "Running"
    passed = replace(seen, probes={("id0", "readiness"): True})
    assert conditions(report.status(want, passed, AROUND))["Ready"] == "True"


def test_waiting_reasons() -> None:
    def waiting(seen: Observed, want: PodView | None = None) -> str:
        state = report.status(want or a_pod(), seen, AROUND)["containerStatuses"][0]["state"]
        return str(state["waiting"]["reason"])

    assert waiting(SEEN) == "ContainerCreating"
    assert waiting(SEEN, a_pod(initContainers=[{"name": "a", "image": "i"}])) == "PodInitializing"
    failed = {"main": Failure("ImagePullBackOff", "m", NOW)}
    assert waiting(replace(SEEN, image_failures=failed)) == "ImagePullBackOff"
    crashed = attempt(1, started_at=NOW - 2, exit=Exit(1, NOW - 1, "Error"), reaped=True, backoff_s=10.0)
    assert waiting(replace(SEEN, containers={"main": (crashed,)})) == "CrashLoopBackOff"


def test_containers_wait_for_the_image_of_a_volume_that_they_mount() -> None:
    mounting = {"name": "main", "image": "i", "volumeMounts": [{"name": "art", "mountPath": "/art"}]}
    volumes = [{"name": "art", "image": {"reference": "r"}}]
    want = a_pod(containers=[mounting, {"name": "other", "image": "i"}], volumes=volumes)
    failed = {"volume/art": Failure("ErrImagePull", "m", NOW)}
    statuses = report.status(want, replace(SEEN, image_failures=failed), AROUND)["containerStatuses"]
    assert [each["state"]["waiting"]["reason"] for each in statuses] == ["ErrImagePull", "ContainerCreating"]


def test_every_container_of_a_pod_with_init_containers_waits_for_the_pod() -> None:
    def reasons(seen: Observed) -> list[str]:
        body = report.status(want, seen, AROUND)
        each = [*body["initContainerStatuses"], *body["containerStatuses"]]
        return [str(one["state"].get("waiting", {}).get("reason")) for one in each]

    want = a_pod(initContainers=[{"name": "a", "image": "i"}, {"name": "b", "image": "i"}])
    assert reasons(SEEN) == ["PodInitializing"] * 3
    crashed = attempt(1, started_at=NOW - 2, exit=Exit(1, NOW - 1, "Error"), reaped=True, backoff_s=10.0)
    seen = replace(SEEN, containers={"a": (replace(crashed, name="a"),)})
    assert reasons(seen) == ["CrashLoopBackOff", "PodInitializing", "PodInitializing"]
    done = attempt(started_at=NOW - 2, exit=Exit(0, NOW - 1, "Completed"), reaped=True)
    seen = replace(SEEN, containers={name: (replace(done, name=name),) for name in ("a", "b")})
    assert reasons(seen)[2] == "PodInitializing"


def test_the_image_shown_is_the_one_that_runs() -> None:
    want = a_pod(containers=[{"name": "main", "image": "new"}])
    assert report.status(want, SEEN, AROUND)["containerStatuses"][0]["image"] == "new"
    seen = replace(SEEN, containers={"main": (attempt(started_at=NOW),)})
    assert report.status(want, seen, AROUND)["containerStatuses"][0]["image"] == "i"


def test_a_restart_keeps_how_the_last_attempt_ended() -> None:
    first = attempt(0, started_at=NOW - 9, exit=Exit(3, NOW - 8, "Error"), reaped=True)
    seen = replace(SEEN, containers={"main": (first, attempt(1, started_at=NOW))})
    main = report.status(a_pod(), seen, AROUND)["containerStatuses"][0]
    assert main["restartCount"] == 1
    assert main["lastState"]["terminated"]["exitCode"] == 3
    assert "running" in main["state"]


def test_a_restart_counts_once_it_runs() -> None:
    first = attempt(0, started_at=NOW - 9, exit=Exit(3, NOW - 8, "Error"), reaped=True)
    making = replace(SEEN, containers={"main": (first, attempt(1))})
    main = report.status(a_pod(), making, AROUND)["containerStatuses"][0]
    assert (main["restartCount"], main["containerID"]) == (0, "sphere://id0")
    assert main["state"]["terminated"]["exitCode"] == 3


def test_a_finished_pod() -> None:
    done = attempt(started_at=NOW - 2, exit=Exit(0, NOW, "Completed"))
    body = report.status(a_pod(restartPolicy="Never"), replace(SEEN, containers={"main": (done,)}), AROUND)
    assert body["phase"] == "Succeeded"
    ready = next(each for each in body["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")


def test_nothing_new_is_nothing_to_write() -> None:
    seen = replace(SEEN, containers={"main": (attempt(started_at=NOW),)})
    first = report.status(a_pod(), seen, AROUND)
    later = replace(AROUND, now=NOW + 60)
    assert not report.differs(first, report.status(a_pod(first), seen, later))
    assert report.differs({}, first)


def test_nobody_hears_that_a_pod_is_over_while_something_of_it_runs() -> None:
    side = {"name": "side", "image": "i", "restartPolicy": "Always"}
    want = a_pod(restartPolicy="Never", initContainers=[side])
    main = attempt(started_at=NOW - 2, exit=Exit(0, NOW, "Completed"))
    helper = replace(attempt(started_at=NOW - 2), name="side")
    seen = replace(SEEN, containers={"main": (main,), "side": (helper,)})
    assert report.status(want, seen, AROUND)["phase"] == "Running"
    gone = replace(seen, containers={"main": (main,), "side": (replace(helper, exit=Exit(143, NOW, "Error")),)})
    assert report.status(want, gone, AROUND)["phase"] == "Succeeded"
    late = a_pod(activeDeadlineSeconds=1)
    alive = replace(SEEN, containers={"main": (attempt(started_at=NOW - 2),)})
    body = report.status(late, alive, replace(AROUND, now=NOW + 9))
    assert (body["phase"], body.get("reason")) == ("Running", None)
    assert report.status(a_pod({"phase": "Failed"}), alive, AROUND)["phase"] == "Failed", "a phase never goes back"


def test_a_deleted_pod_ends_in_a_final_phase() -> None:
    def phase(code: int) -> str:
        body = {**a_pod().body, "metadata": {**a_pod().metadata, "deletionTimestamp": "t"}}
        ended = attempt(started_at=NOW - 2, exit=Exit(code, NOW, "Error"))
        return str(report.status(PodView(body), replace(SEEN, containers={"main": (ended,)}), AROUND)["phase"])

    assert (phase(0), phase(143)) == ("Succeeded", "Failed")


def test_a_refused_pod_says_why_and_shows_no_containers() -> None:
    want = a_pod(os={"name": "windows"})
    body = report.status(want, Observed(), AROUND)
    assert (body["phase"], body["reason"]) == ("Failed", "PodOSNotSupported")
    assert "containerStatuses" not in body, "kubectl would show a container's reason instead"
    again = PodView({**want.body, "status": body})
    assert not report.differs(body, report.status(again, Observed(), replace(AROUND, now=NOW + 60)))


def test_what_never_ran_before_the_deadline_has_an_end() -> None:
    body = report.status(a_pod(activeDeadlineSeconds=1), SEEN, replace(AROUND, now=NOW + 9))
    assert body["phase"] == "Failed"
    assert body["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_ephemeral_containers_have_their_own_list_and_no_say_in_readiness() -> None:
    want = a_pod(ephemeralContainers=[{"name": "debug", "image": "i"}])
    seen = replace(SEEN, containers={"main": (attempt(started_at=NOW),)})
    body = report.status(want, seen, AROUND)
    assert [each["name"] for each in body["ephemeralContainerStatuses"]] == ["debug"]
    assert conditions(body)["Ready"] == "True"
    debug = replace(attempt(started_at=NOW), name="debug")
    later = report.status(want, replace(seen, containers={**seen.containers, "debug": (debug,)}), AROUND)
    assert report.urgent(body, later), "somebody waits at a terminal"


def test_a_program_that_could_not_be_run_is_an_attempt_that_failed() -> None:
    failed = attempt(started_at=NOW, exit=Exit(128, NOW, "StartError", "no such file"), reaped=True)
    seen = replace(SEEN, containers={"main": (failed,)})
    body = report.status(a_pod(restartPolicy="Never"), seen, AROUND)
    assert body["phase"] == "Failed"
    ended = body["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"], ended["message"]) == ("StartError", 128, "no such file")


def test_a_resize_shows_what_the_container_has_and_why_it_has_no_more() -> None:
    def wanting(memory: str) -> PodView:
        return a_pod(containers=[{"name": "main", "image": "i", "resources": {"limits": {"memory": memory}}}])

    state = attempt(started_at=NOW, resources=wanting("64Mi").main[0].resources)
    failed = {"main": Failure("ResizeError", "in use", NOW)}
    body = report.status(
        wanting("32Mi"), replace(SEEN, containers={"main": (state,)}, container_failures=failed), AROUND
    )
    assert body["containerStatuses"][0]["resources"] == {"limits": {"memory": "64Mi"}}
    resizing = next(each for each in body["conditions"] if each["type"] == "PodResizeInProgress")
    assert (resizing["status"], resizing["reason"], resizing["message"]) == ("True", "Error", "in use")
    plain = report.status(wanting("64Mi"), replace(SEEN, containers={"main": (state,)}), AROUND)
    assert "PodResizeInProgress" not in conditions(plain)
    assert report.differs(body, plain)
    told = PodView({**wanting("64Mi").body, "status": body})
    assert report.patch(told, plain)["status"]["conditions"][-1] == {"type": "PodResizeInProgress", "$patch": "delete"}
    assert report.patch(PodView({**told.body, "status": plain}), plain)["status"] == plain


def test_resources_are_shown_as_they_are_given() -> None:
    given = {"limits": {"cpu": "30m"}, "requests": {"cpu": "20m", "ephemeral-storage": "1Mi"}}
    want = a_pod(containers=[{"name": "main", "image": "i", "resources": given}, {"name": "other", "image": "i"}])
    state = attempt(started_at=NOW, resources=want.main[0].resources)
    body = report.status(want, replace(SEEN, containers={"main": (state,)}), AROUND)
    main, other = body["containerStatuses"]
    assert (main["resources"], main["allocatedResources"]) == (given, given["requests"])
    assert other["resources"] == {}

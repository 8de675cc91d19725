"""Job: enough pods succeed, each end is counted once, failures have limits and delays."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.clock import rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import conditions, job_indexes, job_tally, owners, pods
from controller.reconcilers.job import BACKOFF_S, JobReconciler
from controller.reconcilers.ttl_after_finished import TtlAfterFinishedReconciler
from controller.runtime.resources import JOBS, PODS
from controller.runtime.view import Failure
from controller.runtime.writes import Create
from controller.store.cache import Change
from tests.support.workload_model import KEY, WorkloadModel


def job(completions: int | None = 1, parallelism: int = 1, **spec: Any) -> WorkloadModel:
    pod = {"restartPolicy": "Never", **spec.pop("pod", {})}
    wanted = {"parallelism": parallelism, "backoffLimit": 6, "pod": pod, **spec}
    if completions is not None:
        wanted["completions"] = completions
    return WorkloadModel(JobReconciler(), JOBS, "Job", "batch", wanted)


def end(model: WorkloadModel, pod: Object, phase: str = "Succeeded", code: int = 1) -> None:
    state = {"terminated": {"exitCode": 0 if phase == "Succeeded" else code, "finishedAt": rfc3339(model.registry.now)}}
    model.report(pod, phase, containerStatuses=[{"name": "c", "state": state}])


def is_true(model: WorkloadModel, kind: str) -> bool:
    return conditions.is_true(model.status.get("conditions"), kind)


def reason(model: WorkloadModel, kind: str) -> str:
    found = conditions.find(model.status.get("conditions"), kind)
    return str(found["reason"]) if found else ""


def indexes(model: WorkloadModel) -> list[int | None]:
    return sorted((job_indexes.index_of(pod) for pod in model.active()), key=str)


def test_runs_as_many_as_asked_for_and_completes() -> None:
    model = job(3, 2)
    model.settle()
    assert len(model.active()) == 2
    while not is_true(model, "Complete"):
        end(model, model.active()[0])
        model.settle()
    assert (model.status["succeeded"], model.status.get("failed")) == (3, None)
    assert model.status["completionTime"]
    assert reason(model, "Complete") == reason(model, "SuccessCriteriaMet") == "CompletionsReached"
    assert "uncountedTerminatedPods" not in model.status
    assert not [pod for pod in model.pods() if job_tally.has_finalizer(pod)]
    assert "Completed" in [event.reason for event in model.registry.events]


def test_failures_are_retried_later_and_later_up_to_the_limit() -> None:
    model = job(backoffLimit=2)
    for delay_s in (BACKOFF_S, 2 * BACKOFF_S):
        model.settle()
        end(model, model.active()[0], "Failed")
        model.settle()
        assert not model.active()
        assert model.registry.plan(model.reconciler, KEY).again_s == delay_s
        model.registry.now += delay_s
    model.settle()
    end(model, model.active()[0], "Failed")
    model.settle()
    assert reason(model, "Failed") == reason(model, "FailureTarget") == "BackoffLimitExceeded"
    assert model.status["failed"] == 3
    assert "completionTime" not in model.status


def test_restarts_in_place_count_for_the_limit() -> None:
    model = job(backoffLimit=2, pod={"restartPolicy": "OnFailure"})
    model.settle()
    model.report(model.active()[0], containerStatuses=[{"name": "c", "restartCount": 2}])
    model.settle()
    assert not model.active()
    assert reason(model, "Failed") == "BackoffLimitExceeded"


def test_has_only_ended_when_every_pod_has() -> None:
    model = job(2, 2, backoffLimit=0)
    model.settle()
    first, second = model.active()
    model.run(second, "n1")
    end(model, first, "Failed")
    model.settle()
    assert is_true(model, "FailureTarget")
    assert not is_true(model, "Failed")
    assert model.status["terminating"] == 1
    # It has the job's finalizer: its host lets it go, its end is counted, and then it is gone.
    left = next(pod for pod in model.pods() if pods.is_deleting(pod))
    model.report(left, "Failed")
    model.settle()
    assert is_true(model, "Failed")
    assert model.status["failed"] == 2


def test_lets_go_of_a_pod_that_it_no_longer_selects_and_makes_another() -> None:
    model = job(2, 2)
    model.settle()
    astray = model.active()[0]
    model.registry.put(PODS, {**astray, "metadata": {**astray["metadata"], "labels": {}}})
    model.settle()
    released = model.registry.get(PODS, "d", astray["metadata"]["name"])
    assert released is not None
    assert released.owners == ()
    assert len([pod for pod in model.active() if owners.controller_of(pod)]) == 2


def test_a_pod_that_it_does_not_know_any_more_is_not_kept_from_going() -> None:
    model = job(2, 2)
    model.settle()
    astray = model.active()[0]
    leaving = {**astray["metadata"], "labels": {}, "deletionTimestamp": rfc3339(model.registry.now)}
    model.registry.put(PODS, {**astray, "metadata": leaving})
    model.settle()
    stray = f"stray pod d/{astray['metadata']['name']}"
    model.registry.settle(lambda: [(model.reconciler, stray)])
    assert model.registry.get(PODS, "d", astray["metadata"]["name"]) is None


def test_a_job_on_its_way_out_holds_no_pod_that_it_does_not_select() -> None:
    model = job(2, 2)
    model.settle()
    astray = model.active()[0]
    model.registry.put(PODS, {**astray, "metadata": {**astray["metadata"], "labels": {}}})
    obj = model.object()
    leaving = {"deletionTimestamp": rfc3339(model.registry.now), "finalizers": ["foregroundDeletion"]}
    model.registry.put(JOBS, {**obj, "metadata": {**obj["metadata"], **leaving}})
    model.settle()
    left = model.registry.get(PODS, "d", astray["metadata"]["name"])
    assert left is not None
    assert not job_tally.has_finalizer(left.decode())


def test_no_pods_ready_or_leaving_is_said_with_a_zero() -> None:
    """Clients read the two as numbers that are always there."""
    model = job(2, 2)
    model.settle()
    assert (model.status["ready"], model.status["terminating"]) == (0, 0)
    for pod in model.active():
        model.run(pod, "n1")
    model.settle()
    assert (model.status["ready"], model.status["terminating"]) == (2, 0)


def test_a_deadline_ends_it() -> None:
    model = job(activeDeadlineSeconds=60)
    model.settle()
    assert model.registry.plan(model.reconciler, KEY).again_s == 60
    model.registry.now += 60
    model.settle()
    assert reason(model, "Failed") == "DeadlineExceeded"
    assert not model.active()


def test_suspending_stops_it_without_a_failure_and_starts_the_clock_anew() -> None:
    model = job(2, 2)
    model.settle()
    model.change(suspend=True)
    model.settle()
    assert not model.active()
    assert is_true(model, "Suspended")
    assert "startTime" not in model.status
    assert "failed" not in model.status
    model.registry.now += 100
    model.change(suspend=False)
    model.settle()
    assert len(model.active()) == 2
    assert model.status["startTime"] == rfc3339(model.registry.now)
    told = [event.reason for event in model.registry.events if event.message.startswith("Job ")]
    assert told == ["Suspended", "Resumed"]


def test_a_work_queue_is_done_when_one_worker_found_it_empty_and_all_have_ended() -> None:
    model = job(None, 3)
    model.settle()
    first, second, third = model.active()
    end(model, first)
    model.settle()
    assert len(model.active()) == 2, "no new worker is started"
    end(model, second)
    end(model, third)
    model.settle()
    assert is_true(model, "Complete")
    assert model.status["succeeded"] == 3


def test_less_parallelism_takes_pods_back_uncounted() -> None:
    model = job(5, 4)
    model.settle()
    model.change(parallelism=1)
    model.settle()
    assert len(model.active()) == 1
    assert "failed" not in model.status


def indexed(completions: int, parallelism: int, **spec: Any) -> WorkloadModel:
    return job(completions, parallelism, completionMode="Indexed", **spec)


def test_every_index_is_done_once() -> None:
    model = indexed(4, 2)
    model.settle()
    assert indexes(model) == [0, 1]
    pod = model.active()[0]
    assert pod["spec"]["hostname"] == "web-0"
    assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    end(model, model.active()[1])
    model.settle()
    assert indexes(model) == [0, 2]
    while model.active():
        end(model, model.active()[0])
        model.settle()
    assert model.status["completedIndexes"] == "0-3"
    assert is_true(model, "Complete")


def test_an_index_that_failed_too_often_does_not_stop_the_others() -> None:
    model = indexed(2, 2, backoffLimitPerIndex=1, backoffLimit=2**31 - 1)
    model.settle()
    for _ in range(2):
        end(model, next(pod for pod in model.active() if job_indexes.index_of(pod) == 0), "Failed")
        model.settle()
        model.registry.now += 100
        model.settle()
    assert model.status["failedIndexes"] == "0"
    assert indexes(model) == [1]
    end(model, model.active()[0])
    model.settle()
    assert reason(model, "Failed") == "FailedIndexes"
    assert model.status["completedIndexes"] == "1"


def test_enough_of_the_right_indexes_is_success() -> None:
    model = indexed(3, 3, successPolicy={"rules": [{"succeededIndexes": "0"}]})
    model.settle()
    end(model, next(pod for pod in model.active() if job_indexes.index_of(pod) == 0))
    model.settle()
    assert reason(model, "Complete") == "SuccessPolicy"
    assert not model.active()


CODES = {"operator": "In", "values": [42]}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(
    ("rule", "failed", "over"),
    [
        ({"action": "FailJob", "onExitCodes": CODES}, 1, "PodFailurePolicy"),
        ({"action": "Ignore", "onPodConditions": DISRUPTED}, None, ""),
        ({"action": "Count", "onExitCodes": CODES}, 1, ""),
    ],
)
def test_failures_are_judged_by_the_policy(rule: Object, failed: int | None, over: str) -> None:
    model = job(podFailurePolicy={"rules": [rule]}, podReplacementPolicy="Failed")
    model.settle()
    state = {"terminated": {"exitCode": 42, "finishedAt": rfc3339(model.registry.now)}}
    statuses = [{"name": "c", "state": state}]
    model.report(model.active()[0], "Failed", containerStatuses=statuses, conditions=DISRUPTED)
    model.settle()
    assert model.status.get("failed") == failed
    assert reason(model, "Failed") == over


def test_replacing_failed_pods_only_waits_for_their_end() -> None:
    model = job(podReplacementPolicy="Failed")
    model.settle()
    model.run(model.active()[0], "n1")
    meta = model.pods()[0]["metadata"]
    model.registry.put(
        PODS, {**model.pods()[0], "metadata": {**meta, "deletionTimestamp": rfc3339(model.registry.now)}}
    )
    model.settle()
    assert not model.active()
    end(model, model.pods()[0], "Failed")
    model.settle()
    model.registry.now += BACKOFF_S
    model.settle()
    assert len(model.active()) == 1


def test_pods_of_a_job_that_is_gone_are_let_go() -> None:
    model = job()
    model.settle()
    entry = model.registry.get(JOBS, "d", "web")
    assert entry is not None
    model.registry.remove(JOBS, "d", "web")
    keys = JobReconciler.watches[JOBS](model.registry.view, Change("DELETED", entry, entry, 1))
    for key in keys:
        model.registry.run(model.reconciler, key)
    assert not [pod for pod in model.pods() if job_tally.has_finalizer(pod)]


def test_somebody_elses_jobs_are_left_alone() -> None:
    model = job(managedBy="example.com/queue")
    model.settle()
    assert not model.pods()


def test_a_refusal_is_told() -> None:
    model = job()
    model.registry.view.note_failure(model.reconciler.name, KEY, Failure("Forbidden", "exceeded quota"))
    model.step()
    assert ("FailedCreate", "Error creating: exceeded quota") in [(e.reason, e.message) for e in model.registry.events]


def test_ended_jobs_go_when_their_time_is_over() -> None:
    model = job(ttlSecondsAfterFinished=30)
    ttl = TtlAfterFinishedReconciler()
    model.settle()
    assert model.registry.plan(ttl, KEY).again_s is None
    end(model, model.active()[0])
    model.settle()
    assert model.registry.plan(ttl, KEY).again_s == 30
    model.registry.now += 30
    model.registry.run(ttl, KEY)
    assert "foregroundDeletion" in model.object()["metadata"]["finalizers"]


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.integers(1, 5), st.integers(1, 4), st.data())
def test_each_end_is_counted_once_wherever_the_controller_dies(
    with_index: bool, completions: int, parallelism: int, data: st.DataObject
) -> None:
    extra = {"completionMode": "Indexed"} if with_index else {}
    model = job(completions, parallelism, backoffLimit=100, **extra)
    ends = {"Succeeded": 0, "Failed": 0}
    for _ in range(data.draw(st.integers(5, 50))):
        running = model.active()
        if not running or data.draw(st.integers(0, 2)) == 0:
            model.step(data.draw(st.integers(0, 3)))
            model.registry.now += data.draw(st.sampled_from([0.0, 1000.0]))
        else:
            phase = data.draw(st.sampled_from(["Succeeded", "Failed"]))
            ends[phase] += 1
            end(model, running[data.draw(st.integers(0, len(running) - 1))], phase)
        assert len(model.active()) <= parallelism
        if data.draw(st.booleans()):
            # Whoever cleans up: only what is counted can go for good.
            for pod in [pod for pod in model.pods() if pods.is_terminal(pod) and not job_tally.has_finalizer(pod)]:
                model.registry.remove(PODS, "d", pod["metadata"]["name"])
    while not is_true(model, "Complete"):
        model.settle()
        model.registry.now += 1000
        model.settle()
        for pod in model.active():
            ends["Succeeded"] += 1
            end(model, pod)
        model.settle()
    assert model.status["succeeded"] == completions == ends["Succeeded"]
    assert model.status.get("failed", 0) == ends["Failed"]
    assert not [pod for pod in model.pods() if job_tally.has_finalizer(pod)]


@given(st.sets(st.integers(0, 30)))
def test_index_lists_read_back_as_they_were(found: set[int]) -> None:
    assert job_indexes.parse(job_indexes.text_of(found), 31) == found


def test_creation_is_asked_for_once() -> None:
    model = job(1, 1)
    plan = model.registry.plan(model.reconciler, KEY)
    made = [write.object for write in plan.writes if isinstance(write, Create)]
    assert [owners.controller_of(pod)["kind"] for pod in made] == ["Job"]  # type: ignore[index]


@pytest.mark.parametrize("extra", [{}, {"completionMode": "Indexed"}])
def test_who_does_not_see_all_pods_yet_makes_none_twice(extra: Object) -> None:
    model = job(4, 4, **extra)

    def planned() -> set[str]:
        plan = model.registry.plan(model.reconciler, KEY)
        return {write.object["metadata"]["name"] for write in plan.writes if isinstance(write, Create)}

    before = planned()
    model.step(2)
    made = {pod["metadata"]["name"] for pod in model.pods()}
    assert len(made) == 2
    assert planned() | made == before

"""CronJob: one job per scheduled time, by its concurrency policy, with a history."""

from datetime import datetime
from typing import Any

import pytest

from common.clock import rfc3339
from controller.kinds.kind import Object
from controller.reconcilers.cronjob import SCHEDULED_AT, CronJobReconciler
from controller.runtime.resources import CRON_JOBS, JOBS
from controller.runtime.writes import Create
from tests.support.model_registry import ModelRegistry

KEY = "d/tick"
START = datetime.fromisoformat("2026-01-05T10:00:30+00:00").timestamp()


class Clockwork:
    """A registry with one CronJob, made half a minute past ten."""

    def __init__(self, schedule: str = "*/5 * * * *", **spec: Any) -> None:
        self.registry = ModelRegistry(START)
        self.reconciler = CronJobReconciler()
        meta = {"name": "tick", "namespace": "d"}
        template = {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {"spec": {}}}}
        wanted = {"schedule": schedule, "jobTemplate": template, "concurrencyPolicy": "Allow", **spec}
        self.registry.put(CRON_JOBS, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": wanted})

    def at(self, clock: str, day: str = "05") -> None:
        self.registry.now = datetime.fromisoformat(f"2026-01-{day}T{clock}+00:00").timestamp()
        self.registry.settle(lambda: [(self.reconciler, KEY)])

    def jobs(self) -> list[str]:
        """Scheduled times of the jobs that are there."""
        found = [entry.decode()["metadata"] for entry in self.registry.list(JOBS) if not entry.deleting]
        return sorted(meta["annotations"][SCHEDULED_AT][11:16] for meta in found)

    def end(self, index: int = 0, kind: str = "Complete") -> None:
        job = self.registry.list(JOBS)[index].decode()
        stamp = rfc3339(self.registry.now)
        condition = {"type": kind, "status": "True", "lastTransitionTime": stamp}
        done = {"completionTime": stamp} if kind == "Complete" else {}
        self.registry.put(JOBS, {**job, "status": {"conditions": [condition], **done}})

    @property
    def status(self) -> Object:
        found: Object = self.registry.list(CRON_JOBS)[0].decode().get("status") or {}
        return found

    def reasons(self) -> list[str]:
        return [event.reason for event in self.registry.events]


def test_a_job_at_each_time_and_none_in_between() -> None:
    clockwork = Clockwork()
    clockwork.at("10:04:59")
    assert clockwork.jobs() == []
    assert clockwork.registry.plan(clockwork.reconciler, KEY).again_s == pytest.approx(1.1)
    clockwork.at("10:05:00")
    clockwork.at("10:07:00")
    assert clockwork.jobs() == ["10:05"]
    assert clockwork.status["lastScheduleTime"] == "2026-01-05T10:05:00Z"
    clockwork.at("10:10:01")
    assert clockwork.jobs() == ["10:05", "10:10"]
    assert [each["name"] for each in clockwork.status["active"]] == [e.name for e in clockwork.registry.list(JOBS)]


def test_dying_between_job_and_status_makes_no_second_job() -> None:
    clockwork = Clockwork()
    clockwork.registry.now = START + 300
    plan = clockwork.registry.plan(clockwork.reconciler, KEY)
    made = next(index for index, write in enumerate(plan.writes) if isinstance(write, Create))
    clockwork.registry.run(clockwork.reconciler, KEY, made + 1)
    clockwork.at("10:06:00")
    assert clockwork.jobs() == ["10:05"]
    assert clockwork.status["lastScheduleTime"] == "2026-01-05T10:05:00Z"


def test_only_the_last_of_many_missed_times_is_made_up_for() -> None:
    clockwork = Clockwork()
    clockwork.at("10:01:00", day="30")
    assert clockwork.jobs() == ["10:00"]
    assert "TooManyMissedTimes" in clockwork.reasons()


def test_a_time_missed_by_more_than_the_deadline_is_let_go() -> None:
    clockwork = Clockwork("0 * * * *", startingDeadlineSeconds=60)
    clockwork.at("11:02:00")
    assert clockwork.jobs() == []
    clockwork.at("12:00:59")
    assert clockwork.jobs() == ["12:00"]


def test_forbid_waits_for_the_one_before() -> None:
    clockwork = Clockwork(concurrencyPolicy="Forbid")
    clockwork.at("10:05:00")
    clockwork.registry.now = START + 600
    clockwork.registry.run(clockwork.reconciler, KEY)
    assert clockwork.jobs() == ["10:05"]
    assert "JobAlreadyActive" in clockwork.reasons()
    clockwork.end()
    clockwork.at("10:11:00")
    assert clockwork.jobs() == ["10:05", "10:10"]


def test_replace_ends_the_one_before() -> None:
    clockwork = Clockwork(concurrencyPolicy="Replace")
    clockwork.at("10:05:00")
    clockwork.at("10:10:00")
    assert clockwork.jobs() == ["10:10"]


def test_suspended_starts_nothing() -> None:
    clockwork = Clockwork(suspend=True)
    clockwork.at("10:30:00")
    assert clockwork.jobs() == []


def test_the_newest_ended_jobs_are_kept() -> None:
    clockwork = Clockwork(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0)
    clockwork.at("10:05:00")
    clockwork.end()
    clockwork.at("10:10:00")
    assert clockwork.status["lastSuccessfulTime"] == "2026-01-05T10:05:00Z"
    assert "SawCompletedJob" in clockwork.reasons()
    clockwork.end(1)
    clockwork.at("10:11:00")
    assert clockwork.jobs() == ["10:10"]
    clockwork.at("10:15:00")
    clockwork.end(1, "Failed")
    clockwork.at("10:16:00")
    assert clockwork.jobs() == ["10:10"]


def test_times_are_those_of_the_zone() -> None:
    clockwork = Clockwork("30 12 * * *", timeZone="Europe/Berlin")
    clockwork.at("11:29:00")
    assert clockwork.jobs() == []
    clockwork.at("11:30:00")
    job = clockwork.registry.list(JOBS)[0].decode()
    assert job["metadata"]["annotations"][SCHEDULED_AT] == "2026-01-05T12:30:00+01:00"
    assert job["metadata"]["labels"] == {"a": "b"}


def test_every_counts_from_the_last_time() -> None:
    clockwork = Clockwork("@every 10m")
    clockwork.at("10:25:00")
    assert clockwork.jobs() == ["10:20"]
    assert clockwork.registry.plan(clockwork.reconciler, KEY).again_s == pytest.approx(330.1)

"""Jobs, CronJobs, DaemonSets and StatefulSets: what defaults make of them, and what is refused."""

import copy
from typing import Any

import pytest

from controller.kinds.kind import ResourceKey
from controller.kinds.registry import REGISTRY

LABELS = {"app": "a"}
OF_JOB = "spec.jobTemplate.spec.template.spec"


def template(policy: str = "Always", labels: dict[str, str] | None = None) -> dict[str, Any]:
    spec = {"restartPolicy": policy, "containers": [{"name": "c", "image": "busybox"}]}
    return {"metadata": {"labels": LABELS if labels is None else labels}, "spec": spec}


def made(group: str, plural: str, spec: dict[str, Any]) -> tuple[dict[str, Any], set[tuple[str, str]]]:
    """The object as it would be stored, and what is wrong with it."""
    kind = REGISTRY.by_key(ResourceKey(group, plural))
    obj = {"metadata": {"name": "x", "namespace": "d", "uid": "u1"}, "spec": copy.deepcopy(spec)}
    kind.default(obj)
    kind.prepare_create(obj)
    return obj, {(each.path, each.type) for each in kind.validate(obj)}


def test_a_job_gets_a_selector_of_its_own() -> None:
    job, wrong = made("batch", "jobs", {"template": template("Never")})
    assert not wrong
    assert job["spec"]["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}
    assert job["spec"]["template"]["metadata"]["labels"]["batch.kubernetes.io/job-name"] == "x"
    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (1, 1, 6)
    assert job["metadata"]["labels"] == LABELS


def test_a_work_queue_has_no_number_of_completions() -> None:
    job, wrong = made("batch", "jobs", {"parallelism": 3, "template": template("OnFailure")})
    assert not wrong
    assert "completions" not in job["spec"]


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"template": template("Always")}, "spec.template.spec.restartPolicy"),
        ({"parallelism": -1, "template": template("Never")}, "spec.parallelism"),
        ({"completionMode": "Indexed", "parallelism": 2, "template": template("Never")}, "spec.completions"),
        ({"backoffLimitPerIndex": 1, "template": template("Never")}, "spec.backoffLimitPerIndex"),
        ({"manualSelector": True, "template": template("Never")}, "spec.selector"),
    ],
)
def test_impossible_jobs_are_refused(spec: dict[str, Any], path: str) -> None:
    assert path in {where for where, _ in made("batch", "jobs", spec)[1]}


def test_only_a_suspended_job_that_has_not_started_may_go_elsewhere() -> None:
    kind = REGISTRY.by_key(ResourceKey("batch", "jobs"))
    old, _ = made("batch", "jobs", {"suspend": True, "template": template("Never")})
    new = copy.deepcopy(old)
    new["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "b"}
    assert not kind.validate_update(new, old)
    assert kind.validate_update(new, {**old, "status": {"startTime": "2026-01-01T00:00:00Z"}})
    new["spec"]["template"]["spec"]["containers"][0]["image"] = "other"
    assert kind.validate_update(new, old)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"schedule": "61 * * * *"}, "spec.schedule"),
        ({"schedule": "TZ=UTC * * * * *"}, "spec.schedule"),
        ({"timeZone": "Nowhere/Land"}, "spec.timeZone"),
        ({"concurrencyPolicy": "Perhaps"}, "spec.concurrencyPolicy"),
        (
            {"jobTemplate": {"spec": {"template": template("Always")}}},
            "spec.jobTemplate.spec.template.spec.restartPolicy",
        ),
        ({}, ""),
    ],
)
def test_impossible_cron_jobs_are_refused(change: dict[str, Any], path: str) -> None:
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template("Never")}}, **change}
    job, wrong = made("batch", "cronjobs", spec)
    assert {where for where, _ in wrong} == ({path} if path else set())
    assert job["spec"]["concurrencyPolicy"] == change.get("concurrencyPolicy", "Allow")


@pytest.mark.parametrize("plural", ["daemonsets", "statefulsets"])
def test_selectors_must_match_templates(plural: str) -> None:
    spec = {"selector": {"matchLabels": {"app": "b"}}, "template": template()}
    assert ("spec.template.metadata.labels", "FieldValueInvalid") in made("apps", plural, spec)[1]
    spec["selector"] = {"matchLabels": LABELS}
    assert not made("apps", plural, spec)[1]


def test_a_daemon_set_gives_way_or_surges_but_not_both() -> None:
    spec = {"selector": {"matchLabels": LABELS}, "template": template()}
    for rolling, wrong in (
        ({"maxSurge": 1, "maxUnavailable": 0}, set()),
        ({"maxSurge": 1, "maxUnavailable": 1}, {"spec.updateStrategy.rollingUpdate.maxSurge"}),
        ({"maxSurge": 0, "maxUnavailable": 0}, {"spec.updateStrategy.rollingUpdate.maxUnavailable"}),
    ):
        given = {**spec, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}
        assert {where for where, _ in made("apps", "daemonsets", given)[1]} == wrong


def test_containers_mount_what_claim_templates_give() -> None:
    wanted = template()
    wanted["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    spec = {"selector": {"matchLabels": LABELS}, "template": wanted}
    assert made("apps", "statefulsets", spec)[1], "nothing of that name"
    claim_spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "data"}, "spec": claim_spec}
    obj, wrong = made("apps", "statefulsets", {**spec, "volumeClaimTemplates": [claim]})
    assert not wrong
    assert "volumes" not in obj["spec"]["template"]["spec"]


def test_a_stateful_set_keeps_its_identity() -> None:
    kind = REGISTRY.by_key(ResourceKey("apps", "statefulsets"))
    old, _ = made("apps", "statefulsets", {"selector": {"matchLabels": LABELS}, "template": template()})
    new = copy.deepcopy(old)
    new["spec"] |= {"replicas": 5, "minReadySeconds": 3}
    assert not kind.validate_update(new, old)
    new["spec"]["serviceName"] = "other"
    assert "'replicas', 'ordinals'" in kind.validate_update(new, old)[0].detail

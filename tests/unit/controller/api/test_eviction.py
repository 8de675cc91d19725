"""Disruption budgets: who needs one, and what is left of it."""

import pytest

from controller.api import eviction
from controller.api.status import ApiError
from controller.kinds.kind import Object


def pod(phase: str = "Running", *, ready: bool = True, **labels: str) -> Object:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    return {"metadata": {"name": "p", "labels": labels}, "status": {"phase": phase, "conditions": conditions}}


def budget(allowed: int, *, observed: int = 1, **spec: object) -> Object:
    status = {"disruptionsAllowed": allowed, "observedGeneration": observed, "currentHealthy": 2, "desiredHealthy": 2}
    return {"metadata": {"name": "b", "generation": 1}, "spec": spec, "status": status}


def test_each_eviction_takes_one_and_is_remembered() -> None:
    left = eviction.spent(budget(1), "p", 0.0)
    assert left["disruptionsAllowed"] == 0
    assert left["disruptedPods"] == {"p": "1970-01-01T00:00:00Z"}
    with pytest.raises(ApiError) as refused:
        eviction.spent({**budget(1), "status": left}, "q", 0.0)
    assert refused.value.code == 429
    assert refused.value.details["causes"][0]["message"] == (
        "The disruption budget b needs 2 healthy pods and has 2 currently"
    )


def test_a_budget_that_nobody_has_counted_yet_allows_nothing() -> None:
    with pytest.raises(ApiError) as refused:
        eviction.spent(budget(1, observed=0), "p", 0.0)
    assert "still being processed" in refused.value.details["causes"][0]["message"]


def test_pods_that_disrupt_nobody_need_no_budget() -> None:
    assert all(eviction.is_free(pod(phase)) for phase in ("Pending", "Succeeded", "Failed"))
    assert not eviction.is_free(pod())
    assert eviction.needs_allowance(pod(), budget(0, unhealthyPodEvictionPolicy="AlwaysAllow"))
    assert not eviction.needs_allowance(pod(ready=False), budget(0, unhealthyPodEvictionPolicy="AlwaysAllow"))
    assert not eviction.needs_allowance(pod(ready=False), budget(0))


def test_an_empty_selector_covers_all_and_a_missing_one_nothing() -> None:
    budgets = [budget(1, selector={}), budget(1), budget(1, selector={"matchLabels": {"app": "other"}})]
    assert eviction.budgets_of(pod(app="x"), budgets) == budgets[:1]


def test_an_evicted_pod_says_so_once() -> None:
    first = eviction.marked(pod(), 0.0)
    assert [each["type"] for each in first["conditions"]] == ["Ready", "DisruptionTarget"]
    mark = first["conditions"][-1]
    assert (mark["status"], mark["reason"]) == ("True", "EvictionByEvictionAPI")
    assert eviction.marked({**pod(), "status": first}, 60.0) == first

"""DaemonSet: one pod per node that fits, replaced node by node."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.reconcilers.daemon_placement import target_of
from controller.reconcilers.daemonset import FAILED_AGE_MIN_S, REFUSED_AGE_MIN_S, DaemonSetReconciler
from controller.runtime.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from controller.runtime.writes import Create
from controller.store.cache import Change
from tests.support.workload_model import KEY, WorkloadModel

NODES_ALL = ("n1", "n2", "n3", "n4")
TAINT = {"key": "dedicated", "effect": "NoSchedule"}


def daemon_set(
    *, surge: int = 0, unavailable: int = 1, nodes: tuple[str, ...] = NODES_ALL, **spec: object
) -> WorkloadModel:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    model = WorkloadModel(DaemonSetReconciler(), DAEMON_SETS, "DaemonSet", "apps", {"updateStrategy": strategy, **spec})
    for name in nodes:
        model.add_node(name)
    return model


def start_all(model: WorkloadModel) -> bool:
    waiting = [pod for pod in model.active() if not pods.is_ready(pod)]
    for pod in waiting:
        model.run(pod, target_of(pod))
    for pod in [pod for pod in model.pods() if pods.is_deleting(pod)]:
        model.let_go(pod)
        waiting.append(pod)
    return bool(waiting)


def arrive(model: WorkloadModel) -> None:
    model.settle()
    while start_all(model):
        model.settle()


def where(model: WorkloadModel) -> list[str]:
    return sorted(target_of(pod) for pod in model.active())


def test_every_node_gets_one_and_new_nodes_too() -> None:
    model = daemon_set(nodes=("n1", "n2"))
    arrive(model)
    assert where(model) == ["n1", "n2"]
    model.add_node("n3")
    arrive(model)
    assert where(model) == ["n1", "n2", "n3"]
    assert model.status == {
        "currentNumberScheduled": 3,
        "desiredNumberScheduled": 3,
        "numberMisscheduled": 0,
        "numberReady": 3,
        "numberAvailable": 3,
        "updatedNumberScheduled": 3,
        "observedGeneration": 1,
    }


def test_pods_are_tied_to_their_node_and_bear_its_troubles() -> None:
    model = daemon_set(nodes=("n1",))
    model.settle()
    spec = model.pods()[0]["spec"]
    required = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchFields"][0]["values"] == ["n1"]
    borne = {(each["key"].rpartition("/")[2], each["effect"]) for each in spec["tolerations"]}
    assert borne >= {("not-ready", "NoExecute"), ("unreachable", "NoExecute"), ("unschedulable", "NoSchedule")}


def test_selectors_and_taints_say_where() -> None:
    model = daemon_set(nodes=(), pod={"nodeSelector": {"disk": "ssd"}})
    model.add_node("n1", disk="ssd")
    model.add_node("n2", disk="hdd")
    model.add_node("n3", TAINT, disk="ssd")
    arrive(model)
    assert where(model) == ["n1"]
    model.add_node("n2", disk="ssd")
    model.add_node("n1", disk="hdd")
    arrive(model)
    assert where(model) == ["n2"]


def test_a_taint_that_forbids_newcomers_leaves_who_is_there_and_counts_it_as_misplaced() -> None:
    model = daemon_set(nodes=("n1",))
    arrive(model)
    model.add_node("n1", TAINT)
    arrive(model)
    assert where(model) == ["n1"]
    assert (model.status["numberMisscheduled"], model.status["desiredNumberScheduled"]) == (1, 0)
    model.add_node("n1", {**TAINT, "effect": "NoExecute"})
    arrive(model)
    assert where(model) == []


def test_a_pod_that_a_node_refuses_is_replaced_after_a_while() -> None:
    model = daemon_set(nodes=("n1",))
    arrive(model)
    first = model.pods()[0]
    model.report(first, "Failed")
    plan = model.registry.plan(model.reconciler, KEY)
    assert not any(isinstance(write, Create) for write in plan.writes)
    assert plan.again_s == REFUSED_AGE_MIN_S
    model.registry.now += REFUSED_AGE_MIN_S
    arrive(model)
    assert [pod["metadata"]["name"] for pod in model.active()] != [first["metadata"]["name"]]
    assert where(model) == ["n1"]
    assert "FailedDaemonPod" in [event.reason for event in model.registry.events]


def test_a_pod_that_fails_after_it_has_run_is_replaced_soon() -> None:
    model = daemon_set(nodes=("n1",))
    arrive(model)
    (failed,) = model.active()
    ran = {"name": "c", "state": {"running": {"startedAt": "2023-11-14T22:13:20Z"}}}
    model.report(failed, "Failed", containerStatuses=[ran])
    assert model.registry.plan(model.reconciler, KEY).again_s == FAILED_AGE_MIN_S
    model.registry.now += FAILED_AGE_MIN_S
    arrive(model)
    assert failed["metadata"]["uid"] not in {pod["metadata"]["uid"] for pod in model.pods()}
    assert where(model) == ["n1"]


def test_pods_meant_for_a_node_that_went_are_not_left_waiting() -> None:
    model = daemon_set(nodes=("n1", "n2"))
    model.settle()
    model.registry.remove(NODES, "", "n2")
    model.settle()
    assert where(model) == ["n1"]


def test_on_delete_replaces_nothing_by_itself() -> None:
    model = daemon_set(nodes=("n1", "n2"), updateStrategy={"type": "OnDelete"})
    arrive(model)
    model.change(image="v2")
    arrive(model)
    assert model.images(model.active()) == ["v1", "v1"]
    model.registry.remove(PODS, "d", model.pods()[0]["metadata"]["name"])
    arrive(model)
    assert sorted(model.images(model.active())) == ["v1", "v2"]
    assert model.status["updatedNumberScheduled"] == 1


def test_templates_are_kept_for_rollback() -> None:
    model = daemon_set(nodes=("n1",), revisionHistoryLimit=1)

    def revisions() -> list[tuple[int, str]]:
        listed = [entry.decode() for entry in model.registry.list(CONTROLLER_REVISIONS)]
        found = [
            (each["revision"], each["data"]["spec"]["template"]["spec"]["containers"][0]["image"]) for each in listed
        ]
        return sorted(found)

    for image in ("v1", "v2", "v1"):
        model.change(image=image)
        arrive(model)
    assert revisions() == [(2, "v2"), (3, "v1")]
    assert [entry.decode()["data"]["spec"]["template"]["$patch"] for entry in model.registry.list(CONTROLLER_REVISIONS)]
    model.change(image="v3")
    arrive(model)
    assert revisions() == [(3, "v1"), (4, "v3")]


def test_a_heartbeat_of_a_node_wakes_nobody() -> None:
    model = daemon_set(nodes=("n1",))
    old = model.registry.get(NODES, "", "n1")
    assert old is not None
    keys = DaemonSetReconciler.watches[NODES]
    model.registry.put(NODES, {**old.decode(), "status": {"conditions": []}})
    beat = model.registry.get(NODES, "", "n1")
    assert beat is not None
    assert not tuple(keys(model.registry.view, Change("MODIFIED", beat, old, 1)))
    model.add_node("n1", TAINT)
    tainted = model.registry.get(NODES, "", "n1")
    assert tainted is not None
    assert tuple(keys(model.registry.view, Change("MODIFIED", tainted, beat, 1))) == (KEY,)


@pytest.mark.parametrize("surge", [0, 2])
def test_an_update_arrives(surge: int) -> None:
    model = daemon_set(surge=surge, unavailable=0 if surge else 1)
    arrive(model)
    model.change(image="v2")
    arrive(model)
    assert model.images(model.active()) == ["v2"] * 4
    assert where(model) == list(NODES_ALL)


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.integers(1, 3), st.data())
def test_updates_keep_their_bounds_at_every_step(surging: bool, amount: int, data: st.DataObject) -> None:
    model = daemon_set(surge=amount if surging else 0, unavailable=0 if surging else amount)
    arrive(model)
    model.change(image="v2")
    for _ in range(data.draw(st.integers(5, 40))):
        starting = [pod for pod in model.active() if not pods.is_ready(pod)]
        ending = [pod for pod in model.pods() if pods.is_deleting(pod)]
        steps: list[Object | None] = [None, *starting, *ending]
        chosen = steps[data.draw(st.integers(0, len(steps) - 1))]
        if chosen is None:
            model.step(data.draw(st.integers(0, 4)))
        elif pods.is_deleting(chosen):
            model.let_go(chosen)
        else:
            model.run(chosen, target_of(chosen))
        ready = {target_of(pod) for pod in model.active() if pods.is_ready(pod)}
        assert len(ready) >= len(NODES_ALL) - (0 if surging else amount)
        assert len(model.active()) <= len(NODES_ALL) + (amount if surging else 0)
    arrive(model)
    assert model.images(model.active()) == ["v2"] * 4
    assert where(model) == list(NODES_ALL)


def test_who_does_not_see_all_pods_yet_makes_none_twice() -> None:
    model = daemon_set()
    model.step(1)

    def planned() -> set[str]:
        plan = model.registry.plan(model.reconciler, KEY)
        return {write.object["metadata"]["name"] for write in plan.writes if isinstance(write, Create)}

    before = planned()
    model.step(2)
    made = {pod["metadata"]["name"] for pod in model.pods()}
    assert len(made) == 2
    assert planned() < before

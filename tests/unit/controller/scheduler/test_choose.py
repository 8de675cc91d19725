"""Where a pod goes, and why it goes nowhere."""

from typing import Any

import pytest

from controller.kinds.kind import Object
from controller.scheduler.choose import Placed, Unschedulable, choose
from controller.scheduler.model import PodNeeds, needs_of, requests_of
from controller.scheduler.neighbours import Neighbours
from controller.scheduler.snapshot import Snapshot


def node(name: str, **parts: Any) -> Object:
    ready = {"type": "Ready", "status": parts.pop("ready", "True")}
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "10", **parts.pop("allocatable", {})}
    return {
        "metadata": {"name": name, "labels": parts.pop("labels", {})},
        "spec": parts,
        "status": {"allocatable": allocatable, "conditions": [ready]},
    }


def pod(name: str = "p", cpu: str = "1", *, on: str = "", owner: str = "", ports: Any = (), **spec: Any) -> Object:
    container = {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}, "ports": list(ports)}
    references = [{"uid": owner, "controller": True}] if owner else []
    return {
        "metadata": {"name": name, "namespace": "d", "uid": name, "ownerReferences": references},
        "spec": {"containers": [container], **({"nodeName": on} if on else {}), **spec},
        "status": {},
    }


def decide(wanted: Object, nodes: list[Object], bound: list[Object] | None = None) -> Placed | Unschedulable:
    snapshot = Snapshot()
    for each in nodes:
        snapshot.put_node(each)
    for each in bound or []:
        snapshot.put_pod(each)
    return place(needs_of(wanted), snapshot)


def place(needs: PodNeeds, snapshot: Snapshot, **namespaces: dict[str, str]) -> Placed | Unschedulable:
    """``namespaces``: their labels."""
    nodes = snapshot.nodes()
    around = Neighbours(needs, nodes, snapshot.bound(), snapshot.repelling(), {"d": {}, **namespaces}.get)
    return choose(needs, nodes, 1, around)


TAINT = {"key": "dedicated", "value": "db", "effect": "NoSchedule"}
ZONE_A = {"key": "zone", "operator": "In", "values": ["a"]}


@pytest.mark.parametrize(
    ("wanted", "nodes", "message"),
    [
        pytest.param(pod(), [], "no nodes available to schedule pods", id="no nodes"),
        pytest.param(
            pod(cpu="5"),
            [node("a"), node("b", taints=[TAINT]), node("c")],
            "0/3 nodes are available: 1 node(s) had untolerated taint {dedicated: db}, 2 Insufficient cpu.",
            id="mixed",
        ),
        pytest.param(
            pod(),
            [node("a", unschedulable=True)],
            "0/1 nodes are available: 1 node(s) were unschedulable.",
            id="cordoned",
        ),
        pytest.param(
            pod(nodeSelector={"disk": "ssd"}),
            [node("a")],
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
            id="selector",
        ),
        pytest.param(
            pod(),
            [node("a", ready="Unknown")],
            "0/1 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }.",
            id="not ready",
        ),
        pytest.param(
            pod(),
            [node("a", allocatable={"pods": "0"})],
            "0/1 nodes are available: 1 Too many pods.",
            id="pods",
        ),
    ],
)
def test_reasons(wanted: Object, nodes: list[Object], message: str) -> None:
    assert decide(wanted, nodes) == Unschedulable(message)


def test_host_ports_clash() -> None:
    port = {"containerPort": 80, "hostPort": 80}
    answer = decide(pod("q", ports=[port]), [node("a")], [pod("p", on="a", ports=[port])])
    assert answer == Unschedulable(
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    )


def test_tolerations_and_affinity_open_the_way() -> None:
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [ZONE_A]}]}
        }
    }
    tolerations = [{"key": "dedicated", "operator": "Exists"}]
    nodes = [node("a", labels={"zone": "a"}, taints=[TAINT]), node("b")]
    assert decide(pod(affinity=affinity, tolerations=tolerations), nodes) == Placed("a")


def test_preference_beats_emptiness() -> None:
    preferred = [{"weight": 100, "preference": {"matchExpressions": [ZONE_A]}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    nodes = [node("a", labels={"zone": "a"}), node("b")]
    assert decide(pod(affinity=affinity), nodes, [pod("x", on="a")]) == Placed("a")


def test_siblings_are_spread() -> None:
    bound = [pod("s1", on="a", owner="rs"), pod("s2", on="b", owner="rs")]
    assert decide(pod("s3", owner="rs"), [node("a"), node("b"), node("c")], bound) == Placed("c")


def test_a_finished_pod_frees_its_node() -> None:
    done = {**pod("x", cpu="4", on="a"), "status": {"phase": "Succeeded"}}
    assert decide(pod(), [node("a")], [done]) == Placed("a")


def test_an_assumption_counts_until_it_is_taken_back() -> None:
    snapshot = Snapshot()
    snapshot.put_node(node("a"))
    big = needs_of(pod("big", cpu="3"))
    snapshot.assume(big, "a")
    assert isinstance(place(needs_of(pod("next", cpu="2")), snapshot), Unschedulable)
    snapshot.drop_pod("big")
    assert place(needs_of(pod("next", cpu="2")), snapshot) == Placed("a")


def test_init_containers_and_sidecars_count_as_kubelet_counts_them() -> None:
    def container(cpu: str, **more: str) -> Object:
        return {"name": "c", "resources": {"requests": {"cpu": cpu}}, **more}

    spec = {
        "initContainers": [container("100m", restartPolicy="Always"), container("2")],
        "containers": [container("500m"), container("500m")],
        "overhead": {"cpu": "50m"},
    }
    assert requests_of({"spec": spec}) == {"cpu": 2150, "pods": 1}

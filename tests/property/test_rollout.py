"""Rolling updates keep their promises at every step, in any order, interrupted anywhere, and always arrive."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from common.clock import rfc3339
from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.reconcilers.deployment import DeploymentReconciler
from controller.reconcilers.replicaset import ReplicaSetReconciler
from controller.reconcilers.rollout import bounds_of, int_or_percent
from controller.runtime.reconciler import Reconciler
from controller.runtime.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from tests.support.model_registry import ModelRegistry

DEPLOYMENT, REPLICA_SET = DeploymentReconciler(), ReplicaSetReconciler()
AMOUNTS = st.one_of(st.integers(0, 4), st.sampled_from(["0%", "25%", "50%", "100%"]))


def deployment(replicas: int, surge: int | str, unavailable: int | str, kind: str = "RollingUpdate") -> Object:
    strategy: Object = {"type": kind}
    if kind == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "d"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": strategy,
            "revisionHistoryLimit": 2,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": "v1"}]},
            },
        },
    }


class Cluster:
    """A model registry whose pods become ready when told."""

    def __init__(self, obj: Object) -> None:
        self.registry = ModelRegistry()
        self.registry.put(DEPLOYMENTS, obj)

    def work(self) -> list[tuple[Reconciler, str]]:
        sets: list[tuple[Reconciler, str]] = [
            (REPLICA_SET, f"d/{entry.name}") for entry in self.registry.list(REPLICA_SETS)
        ]
        return [(DEPLOYMENT, "d/web"), *sets]

    def deployment(self) -> Object:
        found = self.registry.get(DEPLOYMENTS, "d", "web")
        assert found is not None
        return found.decode()

    def change(self, **spec: object) -> None:
        obj = self.deployment()
        image = spec.pop("image", None)
        obj["spec"].update(spec)
        if image:
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.registry.put(DEPLOYMENTS, obj)

    def pods(self) -> list[Object]:
        return [entry.decode() for entry in self.registry.list(PODS)]

    def make_ready(self, pod: Object) -> None:
        stamp = rfc3339(self.registry.now)
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp}
        self.registry.put(PODS, {**pod, "status": {"phase": "Running", "conditions": [ready]}})

    def ready_all(self) -> bool:
        waiting = [pod for pod in self.pods() if not pods.is_ready(pod)]
        for pod in waiting:
            self.make_ready(pod)
        return bool(waiting)

    def settle(self) -> None:
        self.registry.settle(self.work)
        while self.ready_all():
            self.registry.settle(self.work)

    def asked_for(self) -> int:
        return sum(entry.decode()["spec"]["replicas"] for entry in self.registry.list(REPLICA_SETS))

    def ready(self) -> int:
        return sum(pods.is_ready(pod) for pod in self.pods())

    def assert_arrived(self, replicas: int, image: str) -> None:
        found = [pod["spec"]["containers"][0]["image"] for pod in self.pods()]
        assert found == [image] * replicas
        status = self.deployment()["status"]
        assert status.get("availableReplicas", 0) == status.get("updatedReplicas", 0) == replicas
        assert "unavailableReplicas" not in status


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), AMOUNTS, AMOUNTS, st.data())
def test_bounds_hold_at_every_step(replicas: int, surge: int | str, spare: int | str, data: st.DataObject) -> None:
    cluster = Cluster(deployment(replicas, surge, spare))
    cluster.settle()
    cluster.assert_arrived(replicas, "v1")
    cluster.change(image="v2")
    above = surge if isinstance(surge, int) else math.ceil(replicas * int(surge[:-1]) / 100)
    below = spare if isinstance(spare, int) else replicas * int(spare[:-1]) // 100
    if not above and not below:
        below = 1
    for _ in range(data.draw(st.integers(5, 40))):
        waiting = [pod for pod in cluster.pods() if not pods.is_ready(pod)]
        steps = [*cluster.work(), *waiting]
        step = steps[data.draw(st.integers(0, len(steps) - 1))]
        if isinstance(step, dict):
            cluster.make_ready(step)
        else:
            cluster.registry.run(step[0], step[1], data.draw(st.integers(0, 3)))
        assert cluster.asked_for() <= replicas + above
        assert cluster.ready() >= replicas - below
    cluster.settle()
    cluster.assert_arrived(replicas, "v2")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_history_of_changes_arrives_at_the_last_one(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["RollingUpdate", "Recreate"]))
    cluster = Cluster(deployment(data.draw(st.integers(0, 5)), 1, 0, kind))
    replicas, image = cluster.deployment()["spec"]["replicas"], "v1"
    for _ in range(data.draw(st.integers(1, 6))):
        match data.draw(st.sampled_from(["image", "scale", "pause", "work", "ready"])):
            case "image":
                image = data.draw(st.sampled_from(["v1", "v2", "v3"]))
                cluster.change(image=image)
            case "scale":
                replicas = data.draw(st.integers(0, 6))
                cluster.change(replicas=replicas)
            case "pause":
                cluster.change(paused=data.draw(st.booleans()))
            case "ready":
                cluster.ready_all()
            case _:
                for reconciler, key in cluster.work():
                    cluster.registry.run(reconciler, key, data.draw(st.integers(0, 4)))
    cluster.change(paused=False)
    cluster.settle()
    cluster.assert_arrived(replicas, image)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(2, 8), st.integers(1, 12))
def test_scaling_in_the_middle_keeps_the_mix(replicas: int, more: int, steps: int) -> None:
    cluster = Cluster(deployment(replicas, 1, 1))
    cluster.settle()
    cluster.change(image="v2")
    for index in range(steps):
        work = cluster.work()
        cluster.registry.run(*work[index % len(work)])
    cluster.change(replicas=more)
    for _ in range(10):
        assert cluster.asked_for() <= max(bounds_of(cluster.deployment()).maximum, replicas + 1)
        for reconciler, key in cluster.work():
            cluster.registry.run(reconciler, key)
    cluster.settle()
    cluster.assert_arrived(more, "v2")


def test_recreate_never_runs_two_versions() -> None:
    cluster = Cluster(deployment(3, 0, 0, "Recreate"))
    cluster.settle()
    cluster.change(image="v2")
    for _ in range(20):
        for reconciler, key in cluster.work():
            cluster.registry.run(reconciler, key)
            assert len({pod["spec"]["containers"][0]["image"] for pod in cluster.pods()}) <= 1
        cluster.ready_all()
    cluster.assert_arrived(3, "v2")


@given(st.integers(0, 100), st.integers(0, 1000))
def test_percentages_round_towards_safety(percent: int, total: int) -> None:
    text = f"{percent}%"
    up = int_or_percent(text, total, round_up=True)
    down = int_or_percent(text, total, round_up=False)
    assert down <= percent * total / 100 <= up
    assert up - down <= 1

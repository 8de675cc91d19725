"""Conditions that others put into a workload's status stay there; a controller writes its own only."""

import pytest

from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions
from controller.reconcilers.daemonset import DaemonSetReconciler
from controller.reconcilers.deployment import DeploymentReconciler
from controller.reconcilers.job import JobReconciler
from controller.reconcilers.replicaset import ReplicaSetReconciler
from controller.reconcilers.statefulset import StatefulSetReconciler
from controller.runtime.reconciler import Reconciler
from controller.runtime.resources import DAEMON_SETS, DEPLOYMENTS, JOBS, REPLICA_SETS, STATEFUL_SETS
from tests.support.workload_model import WorkloadModel

FOREIGN = {
    "type": "Seen",
    "status": "True",
    "reason": "Here",
    "message": "",
    "lastTransitionTime": "2023-11-14T22:13:20Z",
}


@pytest.mark.parametrize(
    ("reconciler", "resource", "spec", "change"),
    [
        (DaemonSetReconciler(), DAEMON_SETS, {}, {"image": "v2"}),
        (DeploymentReconciler(), DEPLOYMENTS, {"replicas": 1}, {"image": "v2"}),
        (JobReconciler(), JOBS, {"completions": 1, "parallelism": 1}, {"parallelism": 2}),
        (ReplicaSetReconciler(), REPLICA_SETS, {"replicas": 1}, {"replicas": 2}),
        (StatefulSetReconciler(), STATEFUL_SETS, {"replicas": 1}, {"image": "v2"}),
    ],
    ids=["DaemonSet", "Deployment", "Job", "ReplicaSet", "StatefulSet"],
)
def test_a_condition_of_somebody_else_stays(
    reconciler: Reconciler, resource: ResourceKey, spec: Object, change: Object
) -> None:
    model = WorkloadModel(reconciler, resource, resource.plural, resource.group, spec)
    model.add_node("n1")
    model.settle()
    obj = model.object()
    listed = [*(model.status.get("conditions") or ()), FOREIGN]
    model.registry.put(resource, {**obj, "status": {**obj["status"], "conditions": listed}})
    model.change(**change)
    model.settle()
    assert conditions.find(model.status["conditions"], "Seen") == FOREIGN

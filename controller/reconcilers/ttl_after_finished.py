"""Jobs that have ended are removed ``ttlSecondsAfterFinished`` later, pods first."""

from collections.abc import Mapping

from controller.kinds.kind import ResourceKey
from controller.reconcilers import job_outcome, pods
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import JOBS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Delete, Plan


class TtlAfterFinishedReconciler:
    """See the module."""

    name = "ttl-after-finished-controller"
    watches: Mapping[ResourceKey, Map] = {JOBS: own_key}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        job = view.get(JOBS, namespace, name)
        if job is None or pods.is_deleting(job):
            return NOTHING_TO_DO
        ttl_s, ended_at = job["spec"].get("ttlSecondsAfterFinished"), job_outcome.ended_at(job)
        if ttl_s is None or ended_at is None:
            return NOTHING_TO_DO
        left_s = ended_at + float(ttl_s) - now
        if left_s > 0:
            return Plan((), left_s, "")
        meta = job["metadata"]
        write = Delete(
            JOBS, namespace, name, meta["uid"], resource_version=meta["resourceVersion"], propagation="Foreground"
        )
        return Plan((write,), None, "removed, its time is over")

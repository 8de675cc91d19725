"""Generic ephemeral volumes: a claim per volume of the pod that says so, owned by the pod and gone with it."""

import copy
from collections.abc import Iterable, Mapping

from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import owners, pods
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import PERSISTENT_VOLUME_CLAIMS, PODS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Plan
from controller.store.cache import Change


def _of_pod(view: View, change: Change) -> Iterable[str]:
    return own_key(view, change) if b'"ephemeral":' in change.entry.body else ()


def _of_claim(view: View, change: Change) -> Iterable[str]:
    """A namesake is out of the way."""
    if change.type != "DELETED":
        return ()
    return tuple(f"{e.namespace}/{e.name}" for e in view.entries(PODS, change.entry.namespace) if _may_want(e.body))


def _may_want(body: bytes) -> bool:
    return b'"ephemeral":' in body


class EphemeralVolumeReconciler:
    """See the module."""

    name = "ephemeral-volume-controller"
    watches: Mapping[ResourceKey, Map] = {PODS: _of_pod, PERSISTENT_VOLUME_CLAIMS: _of_claim}

    def plan(self, view: View, key: str, now: float) -> Plan:
        namespace, name = split(key)
        pod = view.get(PODS, namespace, name)
        if pod is None or not pods.is_active(pod):
            return NOTHING_TO_DO
        missing = {
            use.volume: use.claim
            for use in claims.uses(pod)
            if use.ephemeral and view.entry(PERSISTENT_VOLUME_CLAIMS, namespace, use.claim) is None
        }
        volumes = [each for each in pod["spec"]["volumes"] if each["name"] in missing]
        writes = tuple(
            Create(PERSISTENT_VOLUME_CLAIMS, _claim(pod, missing[each["name"]], each["ephemeral"])) for each in volumes
        )
        return Plan(writes, None, f"claims {', '.join(missing.values())} for its ephemeral volumes")


def _claim(pod: Object, name: str, source: Object) -> Object:
    template = copy.deepcopy(source.get("volumeClaimTemplate") or {})
    meta = template.get("metadata") or {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name,
            "namespace": pod["metadata"]["namespace"],
            "labels": meta.get("labels") or {},
            "annotations": meta.get("annotations") or {},
            "ownerReferences": [owners.reference_to({"apiVersion": "v1", "kind": "Pod", **pod})],
        },
        "spec": template.get("spec") or {},
    }

"""Claims that pods use, and volumes that claims are bound to, outlive their deletion until nobody needs them.

The finalizers are given at admission (``api/admission/storage.py``); here they are taken, and given to what has none.
"""

from collections.abc import Iterable, Mapping

from controller.kinds import claims
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import pods
from controller.runtime import indexes
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, split
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Patch, Plan
from controller.store.cache import Change


def _of_pod(view: View, change: Change) -> Iterable[str]:
    if change.type == "DELETED":
        for use in claims.uses(change.entry.decode()):
            yield f"{change.entry.namespace}/{use.claim}"


class ClaimProtectionReconciler:
    """A claim is in use while there is a pod on a host that names it, whether it runs or not."""

    name = "pvc-protection-controller"
    watches: Mapping[ResourceKey, Map] = {PERSISTENT_VOLUME_CLAIMS: own_key, PODS: _of_pod}

    def plan(self, view: View, key: str, now: float) -> Plan:
        claim = view.get(PERSISTENT_VOLUME_CLAIMS, *split(key))
        if claim is None:
            return NOTHING_TO_DO
        return _protect(PERSISTENT_VOLUME_CLAIMS, claim, claims.CLAIM_PROTECTION, in_use=_is_used(view, claim))


class VolumeProtectionReconciler:
    """A volume is in use while it is bound."""

    name = "pv-protection-controller"
    watches: Mapping[ResourceKey, Map] = {PERSISTENT_VOLUMES: own_key}

    def plan(self, view: View, key: str, now: float) -> Plan:
        volume = view.get(PERSISTENT_VOLUMES, *split(key))
        if volume is None:
            return NOTHING_TO_DO
        in_use = claims.phase_of(volume) == "Bound"
        return _protect(PERSISTENT_VOLUMES, volume, claims.VOLUME_PROTECTION, in_use=in_use)


def _is_used(view: View, claim: Object) -> bool:
    meta = claim["metadata"]
    for entry in view.group(indexes.using(meta["namespace"], meta["name"])):
        pod = view.decode(entry)
        named = any(use.claim == meta["name"] and not use.ephemeral for use in claims.uses(pod))
        if pods.node_of(pod) and (named or claims.is_made_for(claim, pod)):
            return True
    return False


def _protect(resource: ResourceKey, obj: Object, finalizer: str, *, in_use: bool) -> Plan:
    meta = obj["metadata"]
    held: list[str] = meta.get("finalizers") or []
    if pods.is_deleting(obj):
        if finalizer not in held or in_use:
            return NOTHING_TO_DO
        wanted, text = [each for each in held if each != finalizer], "not in use any more, let go"
    elif finalizer not in held:
        wanted, text = [*held, finalizer], "protected while it is in use"
    else:
        return NOTHING_TO_DO
    metadata = {"finalizers": wanted, "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return Plan((Patch(resource, meta.get("namespace", ""), meta["name"], {"metadata": metadata}),), None, text)

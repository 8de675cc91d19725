"""What a pod's claims on volumes say about nodes, in kube-scheduler's words. Pure.

Bound claims hold the pod where their volumes can be used. Claims that wait for their first consumer let it choose
among the nodes where a volume is free or can be made; it is written on them, and once they are bound the pod is.
Spec: kube ``pkg/scheduler/framework/plugins/volumebinding`` and ``volumerestrictions``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controller.kinds import claims
from controller.kinds.kind import Object
from controller.reconcilers import pods, volume_match, volume_provisioning
from controller.runtime import indexes
from controller.runtime.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES
from controller.runtime.view import View
from controller.scheduler.model import NodeState, PodNeeds

NOT_REACHED: Final = "node(s) didn't match PersistentVolume's node affinity"
NONE_FREE: Final = "node(s) didn't find available persistent volumes to bind"
UNBOUND: Final = "pod has unbound immediate PersistentVolumeClaims"
EXCLUSIVE: Final = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


@dataclass(frozen=True, slots=True)
class PodVolumes:
    """What follows from a pod's claims."""

    blocked: str = ""
    """Why no node can take the pod."""
    under_way: bool = False
    """A claim is about to be bound: nothing to be decided, or told, until it is."""
    against: Mapping[str, str] = field(default_factory=dict)
    """Reason by name of each node that cannot take it."""
    unbound: tuple[Object, ...] = ()
    """Claims on which the chosen node is to be written."""

    @property
    def selected(self) -> str:
        """The node that was chosen before for one of ``unbound``."""
        found = (claims.annotation(claim, claims.SELECTED_NODE) for claim in self.unbound)
        return next((name for name in found if name), "")

    def lacking(self, node: str) -> list[Object]:
        """Claims that do not say ``node`` yet."""
        return [claim for claim in self.unbound if claims.annotation(claim, claims.SELECTED_NODE) != node]


NO_VOLUMES: Final = PodVolumes()


def look(view: View, pod: PodNeeds, nodes: Sequence[NodeState]) -> PodVolumes:
    """What the claims of ``pod`` say now."""
    if not pod.claims:
        return NO_VOLUMES
    bound: list[Object] = []
    unbound: list[Object] = []
    under_way = False
    for use in {use.claim: use for use in pod.claims}.values():
        claim = view.get(PERSISTENT_VOLUME_CLAIMS, pod.namespace, use.claim)
        blocked = _blocked(view, pod, use.claim, claim, ephemeral=use.ephemeral)
        if blocked or claim is None:
            return PodVolumes(blocked)
        volume = view.get(PERSISTENT_VOLUMES, "", claims.volume_of(claim)) if claims.volume_of(claim) else None
        if claims.is_bound(claim) and claims.phase_of(claim) == "Bound" and volume is not None:
            bound.append(volume)
        elif volume is not None and (volume["spec"].get("claimRef") or {}).get("uid") == claim["metadata"]["uid"]:
            under_way = True
        elif not claims.volume_of(claim) and volume_provisioning.is_delayed(_class(view, claim)):
            unbound.append(claim)
        else:
            return PodVolumes(UNBOUND)
    if under_way:
        return PodVolumes(under_way=True)
    unbound.sort(key=lambda claim: (volume_match.requested(claim).nanos, claim["metadata"]["name"]))
    reasons = ((node.name, _reason(view, bound, unbound, node)) for node in nodes)
    return PodVolumes(against={name: why for name, why in reasons if why}, unbound=tuple(unbound))


def _blocked(view: View, pod: PodNeeds, name: str, claim: Object | None, *, ephemeral: bool) -> str:
    if claim is None:
        if ephemeral:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        return f'persistentvolumeclaim "{name}" not found'
    if ephemeral and not claims.is_made_for(claim, {"metadata": {"uid": pod.uid}}):
        return f"PVC {pod.namespace}/{name} was not created for pod {pod.key} (pod is not owner)"
    volume = claims.volume_of(claim)
    if claims.phase_of(claim) == "Lost" or (
        claims.is_bound(claim) and view.entry(PERSISTENT_VOLUMES, "", volume) is None
    ):
        return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
    if pods.is_deleting(claim):
        return f'persistentvolumeclaim "{name}" is being deleted'
    if "ReadWriteOncePod" in (claim["spec"].get("accessModes") or ()) and _has_user(view, pod, name):
        return EXCLUSIVE
    return ""


def _has_user(view: View, pod: PodNeeds, claim: str) -> bool:
    """Another pod that is on a node uses the claim."""
    others = (view.decode(each) for each in view.group(indexes.using(pod.namespace, claim)) if each.uid != pod.uid)
    return any(pods.node_of(other) and not pods.is_terminal(other) for other in others)


def _class(view: View, claim: Object) -> Object | None:
    name = claims.class_of(claim)
    return view.get(STORAGE_CLASSES, "", name) if name else None


def _reason(view: View, bound: Iterable[Object], unbound: Iterable[Object], node: NodeState) -> str:
    if not all(volume_match.reaches(volume, node) for volume in bound):
        return NOT_REACHED
    taken: set[str] = set()
    for claim in unbound:
        meta = claim["metadata"]
        named = view.group(indexes.volumes_for(meta["namespace"], meta["name"]))
        kept = volume_match.kept((view.decode(each) for each in named), claim)
        if kept is not None:
            if not volume_match.reaches(kept, node):
                return NOT_REACHED
            continue
        group = view.group(indexes.free_volumes(claims.class_of(claim) or ""))
        free = (view.decode(each) for each in group if each.name not in taken)
        found = volume_match.best(free, claim, node)
        if found is not None:
            taken.add(found["metadata"]["name"])
            continue
        storage_class = _class(view, claim)
        if storage_class is None or volume_provisioning.problem(claim, storage_class):
            return NONE_FREE
    return ""


def users_of(view: View, namespace: str, claim: str) -> list[str]:
    """Uids of the pods without a node that use the claim."""
    group = view.group(indexes.using(namespace, claim))
    return [each.uid for each in group if each.resource == PODS and not each.fields.get("spec.nodeName")]

"""Which volume a claim gets: what must fit, and which of those that fit is the best. Pure.

Spec: kube ``component-helpers/storage/volume`` (``FindMatchingVolume``), ``checkVolumeSatisfyClaim``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from common.quantity import Quantity
from common.selectors import from_label_selector
from controller.kinds import claims
from controller.kinds.columns import dig
from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.scheduler.model import Located, terms_of


@dataclass(frozen=True, slots=True)
class Place:
    """A node, as far as volumes care."""

    name: str
    labels: Mapping[str, str]


def place_of(node: Object) -> Place:
    return Place(node["metadata"]["name"], node["metadata"].get("labels") or {})


def requested(claim: Object) -> Quantity:
    return Quantity.parse(dig(claim, "spec.resources.requests", {}).get("storage", 0))


def capacity(volume: Object) -> Quantity:
    return Quantity.parse(dig(volume, "spec.capacity", {}).get("storage", 0))


def mismatch(volume: Object, claim: Object) -> str:
    """Why the volume is not what the claim asks for, in upstream's words; empty when it is."""
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if (claims.class_of(volume) or "") != (claims.class_of(claim) or ""):
        return "storageClassName does not match"
    if _mode(volume) != _mode(claim):
        return "incompatible volumeMode"
    if not {*dig(claim, "spec.accessModes", [])} <= {*dig(volume, "spec.accessModes", [])}:
        return "incompatible accessMode"
    return ""


def reaches(volume: Object, place: Located) -> bool:
    """Whether the volume can be used on the node."""
    terms = terms_of(dig(volume, "spec.nodeAffinity.required"))
    return terms is None or any(term.matches(place) for term in terms)


def is_kept_for(volume: Object, claim: Object) -> bool:
    """Whether ``spec.claimRef`` names this very claim; without a uid, whichever claim has the name."""
    ref, meta = dig(volume, "spec.claimRef"), claim["metadata"]
    if not ref or (ref.get("namespace"), ref.get("name")) != (meta.get("namespace"), meta["name"]):
        return False
    return ref.get("uid") in (None, "", meta["uid"])


def kept(volumes: Iterable[Object], claim: Object) -> Object | None:
    """The volume that names the claim already: the one whose binding was begun, or one that its maker keeps for it."""
    fitting = [
        volume
        for volume in volumes
        if is_kept_for(volume, claim)
        and not pods.is_deleting(volume)
        and _mode(volume) == _mode(claim)
        and (volume["spec"]["claimRef"].get("uid") or capacity(volume) >= requested(claim))
    ]
    return min(fitting, key=lambda volume: not volume["spec"]["claimRef"].get("uid"), default=None)


def best(volumes: Iterable[Object], claim: Object, place: Located | None) -> Object | None:
    """The smallest free volume that fits, and can be used at ``place`` when that is known. Ties go by name."""
    selector = dig(claim, "spec.selector")
    wanted = from_label_selector(selector) if selector is not None else None
    fitting = [
        volume
        for volume in volumes
        if claims.phase_of(volume) == "Available"
        and not pods.is_deleting(volume)
        and not dig(volume, "spec.claimRef")
        and not mismatch(volume, claim)
        and (wanted is None or wanted.matches(volume["metadata"].get("labels") or {}))
        and (place is None or reaches(volume, place))
    ]
    return min(fitting, key=lambda volume: (capacity(volume).nanos, volume["metadata"]["name"]), default=None)


def _mode(obj: Object) -> str:
    return str(dig(obj, "spec.volumeMode") or "Filesystem")

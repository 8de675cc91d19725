"""Who belongs to a controller: what it owns and still selects; orphans it may adopt; what it must let go. Pure.

Follows ``ControllerRefManager`` of Kubernetes: a controller that is being deleted adopts and releases nothing, and
nothing that is being deleted is adopted. It is released, though: who does not know it must not hold it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from common.selectors import LabelSelector, from_label_selector, from_labels
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import owners, pods
from controller.runtime.reconciler import Map
from controller.runtime.resources import PLAIN_SELECTORS
from controller.runtime.view import View
from controller.runtime.writes import Patch
from controller.store.cache import Change


@dataclass(frozen=True, slots=True)
class Claim:
    """``owned`` names the controller already; ``adopted`` will once ``writes`` are done."""

    owned: tuple[Object, ...]
    adopted: tuple[Object, ...]
    writes: tuple[Patch, ...]

    @property
    def everyone(self) -> list[Object]:
        return [*self.owned, *self.adopted]


def claim(
    view: View,
    owner: Object,
    resource: ResourceKey,
    selector: LabelSelector,
    adoptable: Callable[[Object], bool] = lambda obj: True,
) -> Claim:
    """Objects of ``resource`` that belong to ``owner``, and the patches that make their references say so."""
    meta = owner["metadata"]
    owned: list[Object] = []
    adopted: list[Object] = []
    writes: list[Patch] = []
    for entry in view.owned(meta["uid"]):
        obj = view.decode(entry) if entry.resource == resource else None
        if obj is None or not owners.is_controlled_by(obj, owner):
            continue
        if selector.matches(entry.labels):
            owned.append(obj)
        elif not pods.is_deleting(owner):
            rest = [each for each in obj["metadata"]["ownerReferences"] if each.get("uid") != meta["uid"]]
            writes.append(owner_patch(resource, obj, rest))
    if not pods.is_deleting(owner):
        for entry in view.orphans(resource, meta["namespace"]):
            if entry.deleting or not selector.matches(entry.labels):
                continue
            obj = view.decode(entry)
            if adoptable(obj):
                adopted.append(obj)
                writes.append(owner_patch(resource, obj, [owners.reference_to(owner)]))
    return Claim(tuple(owned), tuple(adopted), tuple(writes))


def selector_of(resource: ResourceKey, obj: Object) -> LabelSelector:
    """``spec.selector`` of an object of ``resource``, whichever of its two forms it has."""
    selector = (obj.get("spec") or {}).get("selector")
    return from_labels(selector) if resource in PLAIN_SELECTORS else from_label_selector(selector)


def owner_patch(resource: ResourceKey, obj: Object, references: Sequence[Mapping[str, object]]) -> Patch:
    """Replace the owner references of exactly this version of the object."""
    meta = obj["metadata"]
    change = {"ownerReferences": list(references), "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    return Patch(resource, meta.get("namespace", ""), meta["name"], {"metadata": change})


def controller_keys(controllers: ResourceKey) -> Map:
    """The controllers that own, or just owned, the changed object; of an orphan, those that select it."""

    def keys(view: View, change: Change) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for entry in filter(None, (change.entry, change.old)):
            for uid in entry.owners:
                owner = view.by_uid(uid)
                if owner is not None and owner.resource == controllers:
                    found[f"{owner.namespace}/{owner.name}"] = None
        if not change.entry.owners and not change.entry.deleting and change.type != "DELETED":
            for key in selecting_keys(view, controllers, change.entry.namespace, change.entry.labels):
                found[key] = None
        return tuple(found)

    return keys


def selecting_keys(view: View, controllers: ResourceKey, namespace: str, labels: Mapping[str, str]) -> list[str]:
    """Keys of the controllers whose selector matches ``labels``."""
    found = []
    for candidate in view.selecting(controllers, namespace, labels):
        parsed = selector_of(controllers, view.decode(candidate))
        if not parsed.is_empty and parsed.matches(labels):
            found.append(f"{candidate.namespace}/{candidate.name}")
    return found

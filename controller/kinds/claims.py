"""Claims on persistent volumes: the names that all who deal with them share, and who claims what. Pure.

Spec: kube ``pkg/controller/volume/persistentvolume``, ``component-helpers/storage/volume``.
"""

from typing import Any, Final, NamedTuple

from controller.kinds.kind import Object, ResourceKey

CLAIMS: Final = ResourceKey("", "persistentvolumeclaims")
VOLUMES: Final = ResourceKey("", "persistentvolumes")
CLASSES: Final = ResourceKey("storage.k8s.io", "storageclasses")

PROVISIONER: Final = "sphere.io/local"
"""Makes volumes of directories on the hosts. Their finalizer has this name too: the host removes it with the data."""
HOST_LABEL: Final = "sphere.io/host"
"""On provisioned volumes: the host whose disk they are on."""
HOSTNAME: Final = "kubernetes.io/hostname"

SELECTED_NODE: Final = "volume.kubernetes.io/selected-node"
BIND_COMPLETED: Final = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY: Final = "pv.kubernetes.io/provisioned-by"
STORAGE_PROVISIONER: Final = "volume.kubernetes.io/storage-provisioner"
DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
CLAIM_PROTECTION: Final = "kubernetes.io/pvc-protection"
VOLUME_PROTECTION: Final = "kubernetes.io/pv-protection"


class Use(NamedTuple):
    """A pod's volume that is a claim. ``ephemeral``: the claim is made for this pod, and goes with it."""

    volume: str
    claim: str
    ephemeral: bool


def uses(pod: Object) -> tuple[Use, ...]:
    """The claims that a pod's volumes are, in their order."""
    found = []
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        source = volume.get("persistentVolumeClaim")
        if source is not None:
            found.append(Use(str(volume["name"]), str(source.get("claimName", "")), False))
        elif volume.get("ephemeral") is not None:
            found.append(Use(str(volume["name"]), f"{pod['metadata']['name']}-{volume['name']}", True))
    return tuple(found)


def is_made_for(claim: Object, pod: Object) -> bool:
    """Whether ``claim`` is of this pod's generic ephemeral volume, not of somebody who had the name before."""
    owners = claim["metadata"].get("ownerReferences") or ()
    return any(each.get("controller") and each.get("uid") == pod["metadata"].get("uid") for each in owners)


def annotation(obj: Object, name: str) -> str:
    """Its value, or nothing."""
    return str((obj["metadata"].get("annotations") or {}).get(name) or "")


def class_of(obj: Object) -> str | None:
    """Class of a claim or volume; a claim's may be undecided (None), which is not the same as none at all ("")."""
    name: Any = (obj.get("spec") or {}).get("storageClassName")
    return None if name is None else str(name)


def volume_of(claim: Object) -> str:
    return str((claim.get("spec") or {}).get("volumeName") or "")


def is_bound(claim: Object) -> bool:
    """Everything about the binding is written down: pods may use it."""
    return bool(volume_of(claim)) and bool(annotation(claim, BIND_COMPLETED))


def phase_of(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase") or "")


def default_class(classes: list[Object]) -> str | None:
    """Name of the class for claims that name none: the newest of those marked as default."""
    marked = [each for each in classes if annotation(each, DEFAULT_CLASS) == "true"]
    marked.sort(key=lambda each: str(each["metadata"]["name"]))
    marked.sort(key=lambda each: str(each["metadata"].get("creationTimestamp", "")), reverse=True)
    return str(marked[0]["metadata"]["name"]) if marked else None

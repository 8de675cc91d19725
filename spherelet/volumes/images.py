"""Volumes that show what is in an image (KEP-4639). Pure.

Their images are pulled as those of containers are, under names that no container can have; what is mounted is the
image's layers, read-only and without execution.
"""

from dataclasses import dataclass

from spherelet.model import ContainerView, Failure, Observed, PodView, Role

PREFIX = "volume/"


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """One volume with an ``image`` source."""

    name: str
    view: ContainerView
    """What its image is pulled for, as if for a container."""


def image_volumes(pod: PodView) -> tuple[ImageVolume, ...]:
    """The image volumes of a pod, in their order."""
    found = []
    for volume in pod.spec.get("volumes") or ():
        source = volume.get("image")
        if source is not None:
            puller = {"name": PREFIX + volume["name"], "image": source.get("reference") or ""}
            puller["imagePullPolicy"] = source.get("pullPolicy") or ""
            found.append(ImageVolume(str(volume["name"]), ContainerView(Role.INIT, puller)))
    return tuple(found)


def pulled(pod: PodView) -> tuple[ContainerView, ...]:
    """Everything of a pod that an image is pulled for: its containers, then its volumes."""
    return (*pod.containers, *(each.view for each in image_volumes(pod)))


def image_of(pod: PodView, name: str) -> str:
    """Reference of the image that is pulled under ``name``; empty if there is none such."""
    return next((each.image for each in pulled(pod) if each.name == name), "")


def failure_of(pod: PodView, container: ContainerView, seen: Observed) -> Failure | None:
    """Why an image that ``container`` needs, as its own or in a volume, is not here."""
    mounted = {each.get("name") for each in container.spec.get("volumeMounts") or ()}
    names = [container.name, *(each.view.name for each in image_volumes(pod) if each.name in mounted)]
    return next((seen.image_failures[name] for name in names if name in seen.image_failures), None)

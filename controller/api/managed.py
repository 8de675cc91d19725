"""managedFields of ordinary writes. Pure."""

from controller.kinds.kind import Object
from controller.kinds.schemas import Shape


def track(shape: Shape, old: Object | None, new: Object, manager: str, subresource: str, now: str) -> None:
    """Record in ``new`` that ``manager`` set what differs from ``old``."""
    if old is not None and "managedFields" in old["metadata"]:
        new["metadata"]["managedFields"] = old["metadata"]["managedFields"]
    else:
        new["metadata"].pop("managedFields", None)

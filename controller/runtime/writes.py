"""What a plan may ask for: a closed union of frozen dataclasses, applied by one runner. Pure."""

from dataclasses import dataclass
from typing import Any

from controller.kinds.kind import Object, ResourceKey

MERGE_PATCH = "application/merge-patch+json"


@dataclass(frozen=True, slots=True)
class EmitEvent:
    """Tell the user about ``regarding``. Repeats of the same words are counted, not stored again."""

    regarding: Object
    """Any dict with ``apiVersion``, ``kind`` and ``metadata`` (name, namespace, uid)."""
    type: str
    """``Normal`` or ``Warning``."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Create:
    """Legal when the view has no such object. Already existing means the view was stale: planned again."""

    resource: ResourceKey
    object: Object
    event: EmitEvent | None = None
    """Emitted once the write has succeeded."""


@dataclass(frozen=True, slots=True)
class Update:
    """Replace all but the status. ``metadata.resourceVersion`` is the precondition."""

    resource: ResourceKey
    object: Object
    event: EmitEvent | None = None


@dataclass(frozen=True, slots=True)
class UpdateStatus:
    """Replace the status only. ``metadata.resourceVersion`` is the precondition."""

    resource: ResourceKey
    object: Object
    event: EmitEvent | None = None


@dataclass(frozen=True, slots=True)
class Patch:
    """Change some fields. Put ``metadata.resourceVersion`` in the patch when it rests on what the view says."""

    resource: ResourceKey
    namespace: str
    name: str
    patch: dict[str, Any] | list[Any]
    content_type: str = MERGE_PATCH
    subresource: str = ""
    event: EmitEvent | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """``uid`` keeps a namesake that came later safe. Already gone counts as done."""

    resource: ResourceKey
    namespace: str
    name: str
    uid: str
    resource_version: str | None = None
    grace_s: int | None = None
    propagation: str | None = None
    event: EmitEvent | None = None


Write = Create | Update | UpdateStatus | Patch | Delete | EmitEvent


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, when to look again without being asked (None: only on a change), and one line for people."""

    writes: tuple[Write, ...] = ()
    again_s: float | None = None
    sentence: str = ""


NOTHING_TO_DO = Plan()

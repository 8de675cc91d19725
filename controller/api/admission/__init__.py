"""Admission: an ordered list of small functions that complete or refuse a write before it is validated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from controller.api.access import User
from controller.api.status import ApiError
from controller.kinds.kind import Kind, Object, ResourceKey
from controller.store.entry import Entry


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """One write. ``obj`` may be changed in place (``old`` not); on DELETE it is the object to be deleted."""

    operation: Literal["CREATE", "UPDATE", "DELETE"]
    kind: Kind
    obj: Object
    old: Object | None
    user: User
    subresource: str
    dry_run: bool


class NotYet(ApiError):
    """A refusal for want of what a controller is about to make: the writer asks again for a short while."""

    def __init__(self, refusal: ApiError) -> None:
        super().__init__(refusal.code, refusal.reason, refusal.message, refusal.details)


class Lookup(Protocol):
    """Reads other objects from memory."""

    def __call__(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None: ...


Step = Callable[[AdmissionRequest, Lookup], None]
"""Pure but for the lookup. Raises ``ApiError`` to refuse."""


class Admission:
    """The chain, in order."""

    def __init__(self, steps: Sequence[Step], lookup: Lookup) -> None:
        self._steps = tuple(steps)
        self._lookup = lookup

    def admit(self, request: AdmissionRequest) -> None:
        """Run every step. Raises ``ApiError`` of the first that refuses."""
        for step in self._steps:
            step(request, self._lookup)

"""Admission: an ordered list of small functions that complete or refuse a write before it is validated."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from controller.api.access import User
from controller.api.status import ApiError
from controller.kinds.kind import Kind, Object, ResourceKey
from controller.store.entry import Entry


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """One write. ``obj`` may be changed in place (``old`` not); on DELETE it is the object to be deleted.

    ``undo`` is called, last first, when the write does not happen after all; ``warnings`` go to the client.
    """

    operation: Literal["CREATE", "UPDATE", "DELETE"]
    kind: Kind
    obj: Object
    old: Object | None
    user: User
    subresource: str
    dry_run: bool
    undo: list[Callable[[], object]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


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
    """Two chains, each in order: ``steps`` complete and refuse, ``judges`` see what will be stored, and refuse."""

    def __init__(self, steps: Sequence[Step], judges: Sequence[Step], lookup: Lookup) -> None:
        self._steps = tuple(steps)
        self._judges = tuple(judges)
        self._lookup = lookup

    def admit(self, request: AdmissionRequest) -> None:
        """Run every step. Raises ``ApiError`` of the first that refuses."""
        for step in self._steps:
            step(request, self._lookup)

    def judge(self, request: AdmissionRequest) -> None:
        """Ask every judge, once the object is complete and valid. Raises ``ApiError`` of the first that refuses."""
        for judge in self._judges:
            judge(request, self._lookup)


def undo(request: AdmissionRequest) -> None:
    """The write did not happen."""
    while request.undo:
        request.undo.pop()()

"""The shape of every reconciler: which changes dirty which keys, and one pure plan per key.

Law 1: ``plan`` does no IO, reads no clock, draws no random number: same view, key and time, same plan.
Law 2: a plan looks only at the state there is, never at what an earlier plan did.
Law 3: stopping after any write of a plan and planning again converges to the same end state.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from controller.kinds.kind import ResourceKey
from controller.runtime.view import View
from controller.runtime.writes import Plan
from controller.store.cache import Change

Map = Callable[[View, Change], Iterable[str]]
"""Keys that a change makes dirty. Runs inside the cache's callback: cheap, memory only."""
EVERYTHING: Final = ResourceKey("*", "*")
"""To watch all resources, those that users define included."""


class Reconciler(Protocol):
    """What the runner needs."""

    @property
    def name(self) -> str:
        """Event source and metric label, for example ``deployment-controller``."""
        ...

    @property
    def watches(self) -> Mapping[ResourceKey, Map]: ...

    def plan(self, view: View, key: str, now: float) -> Plan:
        """What brings ``key`` closer to what is wanted; no writes when nothing is left to do."""
        ...


def own_key(view: View, change: Change) -> Iterable[str]:
    """The changed object itself."""
    return (f"{change.entry.namespace}/{change.entry.name}",)


def owner_keys(owner: ResourceKey) -> Map:
    """The objects of kind ``owner`` that own, or just owned, the changed object."""

    def keys(view: View, change: Change) -> Iterable[str]:
        uids = {*change.entry.owners, *(change.old.owners if change.old else ())}
        found = (view.by_uid(uid) for uid in sorted(uids))
        return tuple(f"{e.namespace}/{e.name}" for e in found if e is not None and e.resource == owner)

    return keys

"""What to change. Law 1: pure, and ignorant of netlink and nft. Law 2: same inputs, same plan, in any order of items.

Law 3: what closes comes before what opens, so that after any of its transactions (``kernel.nft.chunks``) nothing is
open that is closed at the end.
"""

from collections.abc import Iterable
from typing import Final, assert_never, cast

from nsx_agent.model import (
    VERDICT_SETS,
    ChainKey,
    ChainSpec,
    Change,
    DropChain,
    DropElement,
    DropRecord,
    DropRoute,
    DropSet,
    ElementKey,
    Entries,
    Key,
    Phase,
    PutChain,
    PutElement,
    PutRecord,
    PutRoute,
    PutSet,
    RecordKey,
    Route,
    RouteKey,
    SetKey,
    SetSpec,
    Value,
)

ADMITTING_SETS: Final = frozenset({"ports"})


def plan(want: Entries, seen: Entries, touched: Iterable[Key] | None = None) -> tuple[Change, ...]:
    """Changes that turn ``seen`` into ``want``, in order. ``touched`` limits the comparison to those keys."""
    keys = set(touched) if touched is not None else want.keys() | seen.keys()
    changes: list[tuple[Phase, tuple[str, ...], Change]] = []
    for key in keys:
        wanted, held = want.get(key), seen.get(key)
        if wanted == held:
            continue
        for change in _changes(key, wanted, held):
            changes.append((phase(change), _order(key), change))
    changes.sort(key=lambda entry: entry[:2])
    return tuple(change for _, _, change in changes)


def _order(key: Key) -> tuple[str, ...]:
    return tuple(map(str, key))


def _changes(key: Key, wanted: Value | None, held: Value | None) -> Iterable[Change]:
    match key:
        case SetKey():
            if held is not None and wanted is not None:
                raise AssertionError(f"set {key.name} cannot change its type; its name must carry it")
            return [DropSet(key.name)] if wanted is None else [PutSet(key.name, cast(SetSpec, wanted))]
        case ChainKey():
            if wanted is None:
                return [DropChain(key.name)]
            return [PutChain(key.name, cast(ChainSpec, wanted), fresh=held is None)]
        case ElementKey():
            if wanted is None:
                return [DropElement(key.set, key.key, cast(str, held))]
            return [PutElement(key.set, key.key, cast(str, wanted), cast("str | None", held))]
        case RouteKey():
            return [DropRoute(key.table, key.cidr)] if wanted is None else [PutRoute(cast(Route, wanted))]
        case RecordKey():
            if wanted is None:
                return [DropRecord(key.name, key.redirect)]
            return [PutRecord(key.name, key.redirect, cast("tuple[str, ...]", wanted))]
        case _:
            assert_never(key)


def phase(change: Change) -> Phase:
    """When a change may happen; see ``Phase`` for the reasons."""
    match change:
        case PutSet():
            return Phase.DECLARE_SET
        case PutChain():
            return Phase.DECLARE_CHAIN
        case PutElement():
            if change.set in VERDICT_SETS:
                return Phase.ISOLATE
            return Phase.ADMIT if change.set in ADMITTING_SETS else Phase.OPEN
        case DropElement():
            return Phase.RELEASE if change.set in VERDICT_SETS else Phase.CLOSE
        case DropChain():
            return Phase.DROP_CHAIN
        case DropSet():
            return Phase.DROP_SET
        case PutRoute() | DropRoute():
            return Phase.ROUTE
        case PutRecord() | DropRecord():
            return Phase.RECORD
        case _:
            assert_never(change)

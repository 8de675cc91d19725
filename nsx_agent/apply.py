"""The one writer: changes into the kernel. Stops at nothing that one bad item causes, and says what that item was."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

from common.errors import Retryable
from common.logs import logger
from nsx_agent.kernel import elements, nft
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.kernel.elements import Part
from nsx_agent.kernel.links import PodLink
from nsx_agent.kernel.nft import Rejected
from nsx_agent.kernel.routes import Seen
from nsx_agent.model import (
    ChainKey,
    Change,
    DropChain,
    DropElement,
    DropRecord,
    DropRoute,
    DropSet,
    ElementKey,
    Key,
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

log = logger("apply")


class Kernel(Protocol):
    """What the agent needs of a host. ``kernel.host.HostKernel`` is the real one."""

    def prepare(self) -> None: ...
    def pod_mtu(self) -> int: ...
    async def transaction(self, text: str) -> None: ...
    async def element_transaction(self, parts: list[Part]) -> None: ...
    async def stamp(self) -> str | None: ...
    async def counters(self) -> dict[str, int]: ...
    def put_route(self, route: Route) -> None: ...
    def drop_route(self, table: int, cidr: str) -> None: ...
    def routes(self) -> set[Seen]: ...
    def tunnel_ends(self) -> set[str]: ...
    def pod_links(self) -> set[str]: ...
    async def ensure_pod_link(self, pod: PodLink) -> None: ...
    async def drop_pod_link(self, name: str) -> None: ...
    def flows(self, addresses: frozenset[str], *, udp: bool = False) -> list[Flow]: ...
    def drop_flow(self, flow: Flow) -> None: ...


@dataclass(slots=True)
class Applied:
    """Outcome: ``done`` is in the kernel; ``failed`` are keys that are not, with the kernel's reason."""

    done: list[Change] = field(default_factory=list)
    failed: dict[Key, str] = field(default_factory=dict)


async def apply(
    kernel: Kernel,
    changes: Sequence[Change],
    stamp: str,
    owner_of: Callable[[Key], str],
    spec_of: Callable[[str], SetSpec | None],
) -> Applied:
    """Put ``changes`` (in plan order) in force; the table's stamp becomes ``stamp`` when all of nft's part is.

    ``spec_of`` knows the sets that are in the kernel already.
    """
    outcome = Applied()
    filtering = [change for change in changes if is_nft(change)]
    if filtering:
        if not await _elements(kernel, filtering, stamp, spec_of):
            await _filtering(kernel, filtering, stamp, owner_of, outcome)
        else:
            outcome.done += filtering
    for change in changes:
        if not isinstance(change, PutRoute | DropRoute):
            continue
        try:
            if isinstance(change, PutRoute):
                kernel.put_route(change.route)
            else:
                kernel.drop_route(change.table, change.cidr)
            outcome.done.append(change)
        except Retryable as err:
            outcome.failed[key_of(change)] = str(err)
    return outcome


async def _elements(
    kernel: Kernel, changes: Sequence[Change], stamp: str, spec_of: Callable[[str], SetSpec | None]
) -> bool:
    """The short way for plain elements. False if it does not apply or was refused: nothing has changed then."""
    if len(changes) > nft.ELEMENTS_MAX:
        return False
    parts = elements.encode(changes, nft.STAMP_SET, stamp, spec_of)
    if parts is None:
        return False
    try:
        await kernel.element_transaction(parts)
    except Rejected as err:
        log.warning("elements were refused; nft will say more", reason=str(err))
        return False
    return True


async def _filtering(
    kernel: Kernel, changes: Sequence[Change], stamp: str, owner_of: Callable[[Key], str], outcome: Applied
) -> None:
    parts = nft.chunks(changes)
    refused = False
    for number, part in enumerate(parts):
        # Between parts the table is at no commit: a restarted agent must not take it for one.
        mark = nft.stamp(stamp if number == len(parts) - 1 else nft.unfinished(stamp))
        if not refused:
            try:
                await kernel.transaction(nft.script(part) + mark)
                outcome.done += part
                continue
            except Rejected:
                refused = True
        await _one_by_one(kernel, part, nft.unfinished(stamp), owner_of, outcome)


async def _one_by_one(
    kernel: Kernel, changes: Sequence[Change], stamp: str, owner_of: Callable[[Key], str], outcome: Applied
) -> None:
    """Something in ``changes`` is refused: apply per owner, so that only the culprit's changes are missing.

    What nobody owns any more leaves first if it is an element, which closes, and last if something may refer to it.
    """
    groups: defaultdict[tuple[int, str], list[Change]] = defaultdict(list)
    for change in changes:
        turn = 0 if isinstance(change, DropElement) else 2 if isinstance(change, DropChain | DropSet) else 1
        groups[turn, owner_of(key_of(change))].append(change)
    for group in sorted(groups):
        try:
            await kernel.transaction(nft.script(groups[group]) + nft.stamp(stamp))
            outcome.done += groups[group]
        except Rejected as err:
            outcome.failed |= {key_of(change): str(err) for change in groups[group]}


def is_nft(change: Change) -> bool:
    """Whether a change belongs into the table's transaction."""
    return not isinstance(change, PutRoute | DropRoute | PutRecord | DropRecord)


def key_of(change: Change) -> Key:
    """The entry a change is about."""
    match change:
        case PutSet() | DropSet():
            return SetKey(change.name)
        case PutChain() | DropChain():
            return ChainKey(change.name)
        case PutElement() | DropElement():
            return ElementKey(change.set, change.key)
        case PutRoute():
            return RouteKey(change.route.table, change.route.cidr)
        case DropRoute():
            return RouteKey(change.table, change.cidr)
        case PutRecord() | DropRecord():
            return RecordKey(change.name, change.redirect)
        case _:
            assert_never(change)


def record(committed: dict[Key, Value], done: Iterable[Change]) -> None:
    """Note in ``committed`` what is in the kernel now."""
    for change in done:
        match change:
            case PutSet() | PutChain():
                committed[key_of(change)] = change.spec
            case PutElement():
                committed[key_of(change)] = change.data
            case PutRoute():
                committed[key_of(change)] = change.route
            case PutRecord():
                committed[key_of(change)] = change.records
            case _:
                committed.pop(key_of(change), None)

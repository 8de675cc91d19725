"""The kernel's side of the agent: what it holds, bringing it to the intent, healing, looking after it.

    intent --plan--> changes --apply--> kernel, then the running flows that the change forbids or orphans

What the kernel holds is remembered, not listed. Whenever that memory may be wrong (a transaction without an answer, a
removal that the kernel refuses, somebody else's hand) the whole table is replaced, in one transaction. Nothing counts
as in force before the flows are cut: work that failed is owed and done by the next pass.
"""

import contextlib
from collections.abc import Collection, Mapping
from typing import Protocol

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger
from common.messages import PortItem
from common.tasks import backoff_s
from nsx_agent import apply as writer
from nsx_agent.apply import Kernel
from nsx_agent.config import AUDIT_S, HEAL_S_MIN
from nsx_agent.cuts import cut_flows, sweep
from nsx_agent.intent import SKELETON_OWNER, Intent
from nsx_agent.kernel import nft, ownership
from nsx_agent.kernel.nft import Rejected
from nsx_agent.kernel.routes import Seen
from nsx_agent.model import (
    Change,
    DropChain,
    DropElement,
    DropSet,
    Key,
    PutElement,
    RecordKey,
    Route,
    RouteKey,
    SetKey,
    SetSpec,
    Value,
)
from nsx_agent.plan import plan
from nsx_agent.render import overlay, skeleton

log = logger("enforcer")


class Meter(Protocol):
    """What is measured of the kernel's side."""

    def transaction(self, seconds: float, changes: int) -> None: ...
    def healed(self) -> None: ...


class Enforcer:
    """See the module. ``committed`` is what the kernel holds of us, None while the table is not ours to know."""

    def __init__(self, intent: Intent, kernel: Kernel, meter: Meter, clock: Clock) -> None:
        self.committed: dict[Key, Value] | None = None
        self.failed: dict[Key, str] = {}
        """Keys that are not in force as wanted, and why."""
        self.prefix = ""
        """Of the table's stamp: who wrote it and how; its number follows."""
        self.stamped = -1
        """Number of the commit that the table's stamp names; -1 if it names none."""
        self._intent = intent
        self._kernel = kernel
        self._meter = meter
        self._clock = clock
        self._drifted = False
        self._suspicious = True
        self._uncertain = False
        """A transaction ended in nobody knows what: the table may hold it, or not."""
        self._unplanned = True
        """Everything is to be compared, not only what was touched."""
        self._unswept = True
        """Flows may have begun under other rules than ours: all are to be judged."""
        self._owed: list[Change] = []
        self._judged: set[str] = set()
        """Changes and namespaces whose flows no pass has looked at yet."""
        self._counted = dict.fromkeys(skeleton.COUNTERS, 0)
        self._healed_at = -1e9
        self._audited_at = clock.monotonic()
        self._failures = 0
        self._retry_at = 0.0

    # ---- questions --------------------------------------------------------------------------------------------

    def next_look_s(self) -> float:
        """Seconds until there is something to do without being asked."""
        now = self._clock.monotonic()
        due = self._audited_at + AUDIT_S
        if self.failed:
            due = min(due, self._retry_at)
        return max(0.0, due - now)

    def port_in_force(self, port: PortItem) -> bool:
        """Whether this host's kernel enforces the port: anti-spoofing entry and the policies of its namespace."""
        committed = self.committed
        if committed is None or not self._intent.knows_namespace(port.namespace):
            return False
        return all(committed.get(key) == value for key, value in overlay.port(port).items())

    async def counters(self) -> dict[str, int]:
        """Dropped packets by reason. A table that replaces another goes on from what was read last."""
        with contextlib.suppress(Rejected):  # there is no table at this moment
            for name, packets in (await self._kernel.counters()).items():
                self._counted[name] = max(self._counted.get(name, 0), packets)
        return dict(self._counted)

    # ---- callbacks --------------------------------------------------------------------------------------------

    def drift(self) -> None:
        """Somebody else changed our table."""
        self._drifted = True

    def suspect(self) -> None:
        """Links, routes or neighbours of ours may be missing."""
        self._suspicious = True

    # ---- start ------------------------------------------------------------------------------------------------

    def adopt(self, held: Mapping[Key, Value], number: int) -> None:
        """The table holds exactly ``held``, as its stamp says; of routes nothing is known yet."""
        self.committed = _filtering(held)
        self.stamped = number

    # ---- a pass -----------------------------------------------------------------------------------------------

    async def bring(self, touched: Collection[Key], namespaces: Collection[str], number: int, *, certain: bool) -> int:
        """Make the kernel hold the intent, of which ``touched`` may have changed; then cut flows of ``namespaces``.

        ``number`` is the intent's commit; ``certain``: it is what the controller says now, not what it said once.
        Returns how many entries changed. Raises ``Retryable``: nothing new may be confirmed, and the next call must
        name the same keys again.
        """
        self._judged.update(namespaces)
        if self.committed is None or self._uncertain:
            await self._replace(number)
        if self._drifted:
            await self._heal(number)
        audited = self._suspicious or self._clock.monotonic() >= self._audited_at + AUDIT_S
        if audited:
            await self._audit(number)
        assert self.committed is not None
        changes = self._plan(touched)
        await self._commit(changes, number)
        self._unplanned = False
        self._cut()
        if audited:
            await self._drop_strangers(links=certain)
            self._reconnect()
        return len(changes)

    def _plan(self, touched: Collection[Key]) -> tuple[Change, ...]:
        assert self.committed is not None
        entries = self._intent.composite.entries
        if self._unplanned:
            return plan(_kept(entries), self.committed)
        again = self.failed if self._clock.monotonic() >= self._retry_at else ()
        return plan(entries, self.committed, [key for key in {*touched, *again} if not isinstance(key, RecordKey)])

    async def mark(self, number: int) -> None:
        """Let the stamp name commit ``number``, whose predecessors had nothing for the table."""
        if self.committed is None or self.stamped in (-1, number):
            return
        try:
            await self._kernel.transaction(nft.stamp(self._stamp(number)))
        except Rejected as err:
            self._drifted = True
            raise Retryable(f"the table is not as it was left: {err}") from err
        self.stamped = number

    def _stamp(self, number: int) -> str:
        return f"{self.prefix}.{number}"

    async def _commit(self, changes: tuple[Change, ...], number: int) -> None:
        committed, entries = self.committed, self._intent.composite.entries
        assert committed is not None
        if changes:
            began = self._clock.monotonic()
            left = self.failed.keys() - {writer.key_of(change) for change in changes}
            whole = not any(_is_of_table(key) for key in left)
            self._uncertain = True
            outcome = await writer.apply(
                self._kernel,
                changes,
                self._stamp(number) if whole else nft.unfinished(self._stamp(number)),
                self._intent.composite.owner_of,
                self._spec_of,
            )
            self._uncertain = False
            self._meter.transaction(self._clock.monotonic() - began, len(changes))
            writer.record(committed, outcome.done)
            self._owed += outcome.done
            self.failed.update(outcome.failed)
            if outcome.failed:
                self._failures += 1
                self._retry_at = self._clock.monotonic() + backoff_s(self._failures, base_s=1.0, cap_s=AUDIT_S)
            if any(writer.is_nft(change) for change in changes):
                self.stamped = number if whole and not any(map(_is_of_table, outcome.failed)) else -1
            if any(_is_removal(change, outcome.failed) for change in changes):
                self._drifted = True
                raise Retryable("the kernel refused a removal, so it does not hold what it should")
        self.failed = {key: reason for key, reason in self.failed.items() if entries.get(key) != committed.get(key)}
        if not self.failed:
            self._failures = 0

    def _spec_of(self, name: str) -> SetSpec | None:
        spec = (self.committed or {}).get(SetKey(name))
        return spec if isinstance(spec, SetSpec) else None

    def _cut(self) -> None:
        if self._unswept:
            sweep(self._kernel, self._intent)
        elif self._owed or self._judged:
            cut_flows(self._kernel, self._intent, self._owed, frozenset(self._judged))
        self._unswept = False
        self._owed.clear()
        self._judged.clear()

    # ---- healing ----------------------------------------------------------------------------------------------

    async def _replace(self, number: int) -> None:
        """Our whole table in one transaction, in the place of whatever is there."""
        entries = _filtering(self._intent.composite.entries)
        head = nft.replacement() + nft.prologue(self._counted)
        self._uncertain = self._unplanned = self._unswept = True
        began = self._clock.monotonic()
        try:
            await self._kernel.transaction(head + nft.whole(entries) + nft.stamp(self._stamp(number)))
            self.stamped = number
        except Rejected as err:
            log.warning("the whole table was refused; building it item by item", reason=str(err))
            entries = await self._replace_by_skeleton(head, entries, nft.unfinished(self._stamp(number)))
        self._meter.transaction(self._clock.monotonic() - began, len(entries))
        self._uncertain = False
        routes = {key: value for key, value in (self.committed or {}).items() if isinstance(key, RouteKey)}
        self.committed = routes | entries
        self.failed.clear()

    async def _replace_by_skeleton(self, head: str, entries: Mapping[Key, Value], stamp: str) -> dict[Key, Value]:
        """A table in which no pod can send; the commit that follows adds the rest and finds out what is refused."""
        owner_of = self._intent.composite.owner_of
        always = {key: value for key, value in entries.items() if owner_of(key) == SKELETON_OWNER}
        try:
            await self._kernel.transaction(head + nft.whole(always) + nft.stamp(stamp))
        except Rejected as err:
            raise Retryable(f"the kernel refuses even an empty table: {err}") from err
        self.stamped = -1
        return always

    async def _heal(self, number: int) -> None:
        """Put all of our table back, at most once per ``HEAL_S_MIN``."""
        wait_s = self._healed_at + HEAL_S_MIN - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        self._healed_at = self._clock.monotonic()
        log.warning("the table is not as it was left; replacing it")
        self._meter.healed()
        self._drifted = False
        try:
            await self._replace(number)
        except Retryable:
            self._drifted = True
            raise

    async def _audit(self, number: int) -> None:
        """Compare cheaply what the kernel says with what it should; what is missing is put back by the commit."""
        assert self.committed is not None
        self._kernel.prepare()
        if self.stamped >= 0 and await self._kernel.stamp() != self._stamp(self.stamped):
            await self._heal(number)
        seen, ends = self._kernel.routes(), self._kernel.tunnel_ends()
        for key, value in list(self.committed.items()):
            if isinstance(value, Route):
                remote = value.remote  # empty unless it is a tunnel
                if Seen(value.table, value.cidr, remote) not in seen or (remote and remote not in ends):
                    del self.committed[key]
        self._suspicious, self._unplanned = False, True
        self._audited_at = self._clock.monotonic()

    # ---- ports ------------------------------------------------------------------------------------------------

    def connect(self, port: PortItem) -> Route:
        """Let traffic reach the pod. Legal when the port is in force and its link exists. Raises ``Retryable``."""
        route = overlay.pod_route(port, self._intent.site)
        self._kernel.put_route(route)
        return route

    def disconnect(self, port: PortItem) -> None:
        """Let no traffic reach the pod. Raises ``Retryable``."""
        self._kernel.drop_route(254, overlay.pod_route(port, self._intent.site).cidr)

    def _reconnect(self) -> None:
        """Routes of all ports that are in force and have a link."""
        links = self._kernel.pod_links()
        for port in self._intent.ports().values():
            if ownership.link_name(port.pod_uid) in links and self.port_in_force(port):
                self.connect(port)

    async def _drop_strangers(self, *, links: bool) -> None:
        """Remove routes, and with ``links`` links, of ours that nothing wants."""
        wanted = {(key.table, key.cidr) for key in self._intent.composite.entries if isinstance(key, RouteKey)}
        ports = self._intent.ports()
        wanted |= {(254, overlay.pod_route(port, self._intent.site).cidr) for port in ports.values()}
        for table, cidr in sorted({(each.table, each.cidr) for each in self._kernel.routes()} - wanted):
            self._kernel.drop_route(table, cidr)
        if links:
            for name in sorted(self._kernel.pod_links() - {ownership.link_name(uid) for uid in ports}):
                await self._kernel.drop_pod_link(name)


def _is_removal(change: Change, failed: Mapping[Key, str]) -> bool:
    """Whether ``change`` failed and presumes something that the kernel should hold."""
    presumes = isinstance(change, DropElement | DropChain | DropSet) or (
        isinstance(change, PutElement) and change.replaces is not None
    )
    return presumes and writer.key_of(change) in failed


def _is_of_table(key: Key) -> bool:
    return not isinstance(key, RouteKey | RecordKey)


def _kept(entries: Mapping[Key, Value]) -> dict[Key, Value]:
    """Those of the kernel."""
    return {key: value for key, value in entries.items() if not isinstance(key, RecordKey)}


def _filtering(entries: Mapping[Key, Value]) -> dict[Key, Value]:
    """Those of the table."""
    return {key: value for key, value in entries.items() if _is_of_table(key)}

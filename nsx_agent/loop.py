"""One pass: take over complete scopes -> journal -> render -> plan -> kernel -> flows -> DNS -> watermarks.

    Desired --in sync--> Intent --entries--> plan --changes--> apply --> kernel
       ^                    |                                    |
    Uplink              StateDir (before the kernel)          Report (after the kernel)

Started with what is on disk, before the broker is reached. Only this module catches failures of the kernel.
"""

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger
from common.messages import Failure, Manifest, PortItem, Watermark
from common.tasks import Wake
from nsx_agent import apply as writer
from nsx_agent.apply import Applied, Kernel
from nsx_agent.config import AUDIT_S, HEAL_S_MIN
from nsx_agent.cuts import cut_flows
from nsx_agent.desired import Desired, ScopeStore
from nsx_agent.intent import Intent
from nsx_agent.kernel import nft, ownership
from nsx_agent.kernel.nft import Rejected
from nsx_agent.kernel.routes import Seen
from nsx_agent.model import Change, Key, RecordKey, Route, RouteKey, SetKey, SetSpec, Value
from nsx_agent.plan import plan
from nsx_agent.render import overlay, skeleton
from nsx_agent.render.addresses import short_hash
from nsx_agent.state import Commit, ScopeCommit, Snapshot, StateDir

log = logger("loop")


class Resolver(Protocol):
    """The host's DNS server."""

    def want(self, records: Mapping[RecordKey, tuple[str, ...] | None]) -> None: ...
    async def sync(self) -> None: ...


class Reports(Protocol):
    """Where watermarks go, and who has to know when the set of scopes changes."""

    def report(self, watermark: Watermark) -> None: ...
    def forget(self, path: str) -> None: ...
    def stores_changed(self) -> None: ...


class Meter(Protocol):
    """What the loop measures."""

    def committed(self, scope: str, latency_s: float) -> None: ...
    def transaction(self, seconds: float, changes: int) -> None: ...
    def healed(self) -> None: ...


@dataclass(slots=True)
class Memory:
    """What the loop knows of the kernel. ``committed`` is None while the table is not ours to know."""

    committed: dict[Key, Value] | None = None
    number: int = 0
    stamped: int = 0
    incarnation: str = ""
    failed: dict[Key, str] = field(default_factory=dict)
    reported: dict[str, tuple[Manifest, tuple[Failure, ...]]] = field(default_factory=dict)
    healed_at: float = -1e9


class Loop:
    """See the module. ``wake`` is set by callbacks; ``settled`` lets others wait for the outcome of passes."""

    def __init__(
        self,
        desired: Desired,
        intent: Intent,
        state: StateDir,
        kernel: Kernel,
        resolver: Resolver,
        meter: Meter,
        clock: Clock,
    ) -> None:
        self.desired = desired
        self.intent = intent
        self.memory = Memory()
        self.wake = Wake()
        self._drifted = False
        self._suspicious = False
        self._uncertain = False
        """A transaction ended in nobody knows what: the table may hold it, or not."""
        self._touched: set[Key] = set()
        self._judged: set[str] = set()
        self._departed: dict[str, PortItem] = {}
        """Keys, namespaces and ports whose change no pass has brought to its end yet."""
        self._state = state
        self._kernel = kernel
        self._resolver = resolver
        self._meter = meter
        self._clock = clock
        self._reports: Reports | None = None
        self._settled = asyncio.Event()

    def connect(self, reports: Reports) -> None:
        """Say where watermarks go. Legal once, before ``run``."""
        self._reports = reports

    async def run(self) -> None:
        """Pass after pass until cancelled. Legal after ``start``."""
        while True:
            asked = await self.wake.wait(AUDIT_S)
            try:
                sentence = await self.once(audit=not asked)
            except Retryable as err:
                log.warning("pass failed", reason=str(err))
                await self._clock.sleep(1.0)
                self.wake.set()
                continue
            if sentence:
                log.info(sentence)

    # ---- start ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Enforce the intent on disk; adopt the table without touching it if it holds exactly that."""
        self._kernel.prepare()
        snapshot, commits = self._state.load(uuid.uuid4().hex[:12])
        memory = self.memory
        memory.incarnation, memory.number = snapshot.incarnation, snapshot.number
        stamp = await self._kernel.stamp()
        known = self._stamp_number(stamp)
        self._restore(snapshot)
        seen = dict(self.intent.composite.entries) if known == snapshot.number else None
        for commit in commits:
            self._replay(commit)
            memory.number = commit.number
            if commit.number == known:
                seen = dict(self.intent.composite.entries)
        has_state = snapshot.number > 0 or bool(commits)
        if seen is not None and known is not None:
            memory.stamped = known
            memory.committed = {key: value for key, value in seen.items() if not isinstance(key, RouteKey | RecordKey)}
            log.info("adopted the table", revision=known)
        elif stamp is None or has_state:
            await self._replace_table(gap_allowed=stamp is None)
        else:
            log.warning("found a table but no state on disk; it stays in force until the intent is complete")
        self._state.start(self._snapshot())
        self._resolver.want(self._records(self.intent.composite.entries))
        if memory.committed is not None:
            await self._commit(plan(self.intent.composite.entries, memory.committed), ())
        self._reconnect_ports()
        self.wake.set()

    def _stamp_number(self, stamp: str | None) -> int | None:
        prefix, _, number = (stamp or "").rpartition(".")
        return int(number) if prefix == self._stamp_prefix() and number.isdigit() else None

    def _stamp_prefix(self) -> str:
        site = short_hash(repr(self.intent.site))
        return f"{self.memory.incarnation}.{skeleton.VERSION}.{site}"

    def _stamp(self) -> str:
        return f"{self._stamp_prefix()}.{self.memory.number}"

    def _restore(self, snapshot: Snapshot) -> None:
        self.intent.slots = {key: dict(ports) for key, ports in snapshot.slots.items()}
        for path, manifest in snapshot.manifests.items():
            self._hold(path, ScopeCommit(manifest, snapshot.items.get(path, {})))
        self.intent.render()

    def _replay(self, commit: Commit) -> None:
        for path in sorted(commit.scopes):
            self._hold(path, commit.scopes[path])
        for path in commit.forgotten:
            self.intent.forget(path)
            self.desired.namespaces.pop(path.removeprefix("ns/"), None)
        self.intent.render()

    def _hold(self, path: str, commit: ScopeCommit) -> None:
        if path.startswith("ns/"):
            self.desired.set_interest({*self.desired.namespaces, path.removeprefix("ns/")})
        store = self.desired.by_path(path)
        if store is None:
            return  # state of another host name
        store.manifest = commit.manifest
        for key, payload in commit.changes.items():
            if payload is None:
                store.held.pop(key, None)
            else:
                store.held[key] = payload
        self.intent.change(path, commit.changes)

    def _snapshot(self) -> Snapshot:
        stores = [store for store in self.desired.stores() if store.manifest is not None]
        return Snapshot(
            number=self.memory.number,
            incarnation=self.memory.incarnation,
            manifests={store.scope.path: store.manifest for store in stores if store.manifest is not None},
            items={store.scope.path: store.held for store in stores},
            slots=self.intent.slots,
        )

    # ---- a pass -----------------------------------------------------------------------------------------------

    async def once(self, *, audit: bool = False) -> str:
        """One pass. Returns a sentence about it, empty if there was nothing to do. Raises ``Retryable``."""
        ready = [store for store in self.desired.stores() if store.pending and store.in_sync]
        before = self.intent.ports() if ready else {}
        commit = self._take(ready)
        if commit is not None:
            self.memory.number = commit.number
            self._state.append(commit)
            for path in sorted(commit.scopes):
                self.intent.change(path, commit.scopes[path].changes)
            for path in commit.forgotten:
                self.intent.forget(path)
        now = self.intent.ports()
        self._departed.update({uid: port for uid, port in before.items() if uid not in now})
        rendered, namespaces = self.intent.render()
        self._touched |= rendered
        self._judged |= namespaces
        touched = self._touched | self.memory.failed.keys()
        if self._uncertain:
            await self._recover()
        if self._drifted:
            await self._heal("heard a change that is not ours")
        if audit or self._suspicious:
            self._suspicious = False
            await self._audit()
        changes: tuple[Change, ...] = ()
        entries = self.intent.composite.entries
        if self.memory.committed is None and self._all_complete():
            await self._replace_table(gap_allowed=False)
            touched = set(entries)
        if self.memory.committed is not None:
            changes = plan(entries, self.memory.committed, touched)
            await self._commit(changes, frozenset(self._judged))
        self._resolver.want(self._records({key: entries.get(key) for key in touched}))
        self._drop_ports()
        self._touched.clear()
        self._judged.clear()
        await self._resolver.sync()
        self._acknowledge()
        await self._compact()
        self._settle()
        return "" if commit is None else f"commit {commit.number}: {len(commit.scopes)} scopes, {len(changes)} changes"

    def _take(self, ready: list[ScopeStore]) -> Commit | None:
        if not ready:
            return None
        scopes: dict[str, ScopeCommit] = {}
        for store in ready:
            changed = store.take()
            assert store.manifest is not None
            scopes[store.scope.path] = ScopeCommit(store.manifest, {key: store.held.get(key) for key in changed})
        forgotten: list[str] = []
        if self.desired.host.scope.path in scopes:
            self.intent.change(self.desired.host.scope.path, scopes[self.desired.host.scope.path].changes)
            _, removed = self.desired.set_interest(self.intent.interest())
            forgotten = [f"ns/{name}" for name in removed]
            if self._reports is not None:
                self._reports.stores_changed()
                for path in forgotten:
                    self._reports.forget(path)
        for path in forgotten:
            scopes.pop(path, None)
            self.memory.reported.pop(path, None)
        return Commit(self.memory.number + 1, scopes, tuple(forgotten))

    def _all_complete(self) -> bool:
        return all(store.complete for store in self.desired.stores())

    async def _commit(self, changes: tuple[Change, ...], namespaces: frozenset[str] | tuple[str, ...]) -> None:
        """Changes into the kernel, and running flows after them."""
        committed = self.memory.committed
        assert committed is not None
        kernel_changes = tuple(change for change in changes if not isinstance(writer.key_of(change), RecordKey))
        if not kernel_changes:
            self.memory.failed.clear()
            return
        began = self._clock.monotonic()
        self._uncertain = True
        outcome: Applied = await writer.apply(
            self._kernel, kernel_changes, self._stamp(), self.intent.composite.owner_of, self._spec_of
        )
        self._uncertain = False
        self._meter.transaction(self._clock.monotonic() - began, len(kernel_changes))
        if any(writer.is_nft(change) for change in kernel_changes):
            partial = any(not isinstance(key, RouteKey) for key in outcome.failed)
            self.memory.stamped = -1 if partial else self.memory.number
        writer.record(committed, outcome.done)
        self.memory.failed = outcome.failed
        cut_flows(self._kernel, self.intent, outcome.done, frozenset(namespaces))

    def _spec_of(self, name: str) -> SetSpec | None:
        spec = (self.memory.committed or {}).get(SetKey(name))
        return spec if isinstance(spec, SetSpec) else None

    def _acknowledge(self) -> None:
        """Watermarks for scopes whose state in the kernel is new."""
        if self._reports is None or self.memory.committed is None:
            return
        now = self._clock.now()
        for store in self.desired.stores():
            path, manifest = store.scope.path, store.manifest
            if manifest is None:
                continue
            failures = self._failures(path)
            before = self.memory.reported.get(path)
            if before == (manifest, failures):
                continue
            if before is not None and before[0].revision < manifest.revision:  # catching up is no latency of ours
                self._meter.committed(path.partition("/")[0], max(0.0, now - manifest.changed_at))
            self.memory.reported[path] = (manifest, failures)
            self._reports.report(
                Watermark(
                    host=self.intent.site.host,
                    scope=path,
                    epoch=manifest.epoch,
                    revision=manifest.revision,
                    digest=manifest.digest,
                    committed_at=now,
                    failures=failures,
                )
            )

    def _failures(self, path: str) -> tuple[Failure, ...]:
        found = {failure.key: failure for failure in self.intent.failures(path)}
        for key, reason in self.memory.failed.items():
            owner = self.intent.composite.owner_of(key)
            if owner == path or owner.startswith(f"{path}:"):
                item = owner.partition(":")[2] or "policy"
                found[item] = Failure(key=item, reason=reason)
        return tuple(found[key] for key in sorted(found))

    def _records(self, entries: Mapping[Key, Value | None]) -> dict[RecordKey, tuple[str, ...] | None]:
        return {
            key: value if isinstance(value, tuple) else None
            for key, value in entries.items()
            if isinstance(key, RecordKey)
        }

    async def _compact(self) -> None:
        if not self._state.wants_compaction or self.memory.stamped < 0 or self.memory.committed is None:
            return
        if self.memory.stamped != self.memory.number:  # later commits had nothing for the table
            await self._kernel.transaction(nft.stamp(self._stamp()))
            self.memory.stamped = self.memory.number
        self._state.start(self._snapshot())

    # ---- healing ----------------------------------------------------------------------------------------------

    async def _replace_table(self, *, gap_allowed: bool) -> None:
        """Our whole table in one transaction, in the place of whatever is there."""
        entries = self.intent.composite.entries
        head = "" if gap_allowed else nft.replacement()
        text = head + nft.prologue(skeleton.COUNTERS) + nft.whole(entries) + nft.stamp(self._stamp())
        began = self._clock.monotonic()
        try:
            await self._kernel.transaction(text)
        except Rejected as err:
            raise Retryable(f"the whole table was refused: {err}") from err
        self._meter.transaction(self._clock.monotonic() - began, len(entries))
        self.memory.stamped = self.memory.number
        before = self.memory.committed or {}
        committed: dict[Key, Value] = {key: value for key, value in before.items() if isinstance(key, RouteKey)}
        committed.update((key, value) for key, value in entries.items() if not isinstance(key, RouteKey | RecordKey))
        self.memory.committed = committed

    async def _recover(self) -> None:
        """After a transaction of unknown outcome: what we believe of the table is void, so it is made anew."""
        if self.memory.committed is not None:
            await self._replace_table(gap_allowed=False)
            self.memory.failed.clear()
            cut_flows(self._kernel, self.intent, (), frozenset(self.desired.namespaces))
        self._uncertain = False

    async def _audit(self) -> None:
        """Compare cheaply what the kernel says with what it should; repair."""
        if self.memory.committed is None:
            return
        self._kernel.prepare()
        expected = "" if self.memory.stamped < 0 else f"{self._stamp_prefix()}.{self.memory.stamped}"
        if expected and await self._kernel.stamp() != expected:
            await self._heal("stamp differs")
        seen, ends = self._kernel.routes(), self._kernel.tunnel_ends()
        for key, value in list(self.memory.committed.items()):
            if isinstance(value, Route):
                remote = value.remote  # empty unless it is a tunnel
                if Seen(value.table, value.cidr, remote) not in seen or (remote and remote not in ends):
                    del self.memory.committed[key]
        want: dict[Key, Value] = {
            key: value for key, value in self.intent.composite.entries.items() if not isinstance(key, RecordKey)
        }
        lost = plan(want, self.memory.committed)
        if lost:
            log.warning("put back what somebody removed", items=len(lost))
        await self._commit(lost, ())
        present = {(each.table, each.cidr) for each in seen}
        await self._drop_strangers(present)
        self._reconnect_ports()

    def drift(self) -> None:
        """Callback: somebody else changed our table."""
        self._drifted = True
        self.wake.set()

    def suspect(self) -> None:
        """Callback: links, routes or neighbours of ours may be missing."""
        self._suspicious = True
        self.wake.set()

    async def _heal(self, reason: str) -> None:
        """Put all of our table back, at most once per ``HEAL_S_MIN``."""
        if self.memory.committed is None:
            self._drifted = False
            return
        wait_s = self.memory.healed_at + HEAL_S_MIN - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)
        self.memory.healed_at = self._clock.monotonic()
        log.warning("table was changed by somebody else; replacing it", reason=reason)
        self._meter.healed()
        self._drifted = False
        try:
            await self._replace_table(gap_allowed=False)
        except Retryable:
            self._drifted = True
            raise

    async def _drop_strangers(self, present: set[tuple[int, str]]) -> None:
        """Routes and links of ours that nothing wants any more. Only with a complete intent."""
        if not (self.desired.host.in_sync and self.desired.cluster.in_sync):
            return
        wanted = {(key.table, key.cidr) for key in self.intent.composite.entries if isinstance(key, RouteKey)}
        ports = self.intent.ports()
        wanted |= {(254, overlay.pod_route(port, self.intent.site).cidr) for port in ports.values()}
        for table, cidr in sorted(present - wanted):
            self._kernel.drop_route(table, cidr)
        for name in sorted(self._kernel.pod_links() - {ownership.link_name(uid) for uid in ports}):
            await self._kernel.drop_pod_link(name)

    # ---- ports ------------------------------------------------------------------------------------------------

    def port_in_force(self, port: PortItem) -> bool:
        """Whether this host's kernel enforces the port: anti-spoofing entry and the policies of its namespace."""
        committed = self.memory.committed
        if committed is None or not self.intent.knows_namespace(port.namespace):
            return False
        return all(committed.get(key) == value for key, value in overlay.port(port).items())

    def connect_port(self, port: PortItem) -> Route:
        """Let traffic reach the pod. Legal when the port is in force and its link exists. Raises ``Retryable``."""
        route = overlay.pod_route(port, self.intent.site)
        self._kernel.put_route(route)
        return route

    def _reconnect_ports(self) -> None:
        links = self._kernel.pod_links()
        for port in self.intent.ports().values():
            if ownership.link_name(port.pod_uid) in links and self.port_in_force(port):
                self.connect_port(port)

    def _drop_ports(self) -> None:
        for uid in sorted(self._departed):
            self._kernel.drop_route(254, overlay.pod_route(self._departed[uid], self.intent.site).cidr)
        self._departed.clear()

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for passes to make ``condition`` true. False if ``timeout_s`` passed first."""
        deadline = self._clock.monotonic() + timeout_s
        while not condition():
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                return False
            event = self._settled
            try:
                async with asyncio.timeout(left_s):
                    await event.wait()
            except TimeoutError:
                return condition()
        return True

    def _settle(self) -> None:
        self._settled.set()
        self._settled = asyncio.Event()

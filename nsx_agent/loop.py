"""One pass: take over complete scopes -> journal -> render -> plan -> kernel -> flows -> DNS -> watermarks.

    Desired --in sync--> Intent --entries--> plan --changes--> apply --> kernel
       ^                    |                                    |
    Uplink              StateDir (before the kernel)          Report (after the kernel)

Started with what is on disk, before the broker is reached. Only this module catches failures of a pass: the next one
goes on with what this one left undone, and nothing is confirmed before that.
"""

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger
from common.messages import Failure, Manifest, PortItem, Watermark
from common.tasks import Wake
from nsx_agent import enforcer
from nsx_agent.apply import Kernel
from nsx_agent.config import FAILURES_MAX, PASS_S_MIN, STORE_AGAIN_S
from nsx_agent.desired import Desired, ScopeStore
from nsx_agent.enforcer import Enforcer
from nsx_agent.intent import Intent
from nsx_agent.kernel import nft
from nsx_agent.model import Key, RecordKey
from nsx_agent.render import skeleton
from nsx_agent.render.addresses import short_hash
from nsx_agent.state import Commit, ScopeCommit, Snapshot, StateDir

log = logger("loop")
NO_COMMIT: Final = -1


class Resolver(Protocol):
    """The host's DNS server."""

    def want(self, records: Mapping[RecordKey, tuple[str, ...] | None]) -> None: ...
    async def sync(self) -> None: ...


class Reports(Protocol):
    """Where watermarks go, and who has to know when the set of scopes changes."""

    def report(self, watermark: Watermark) -> None: ...
    def forget(self, path: str) -> None: ...
    def stores_changed(self) -> None: ...


class Meter(enforcer.Meter, Protocol):
    """What the loop measures."""

    def committed(self, scope: str, latency_s: float) -> None: ...


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
        self.enforcer = Enforcer(intent, kernel, meter, clock)
        self.wake = Wake()
        self.number = 0
        """Of the newest commit."""
        self.reported: dict[str, tuple[Manifest, tuple[Failure, ...]]] = {}
        """What was confirmed, by scope path."""
        self._incarnation = ""
        self._hands_off = False
        """There is a table that is not known; it stays in force until the intent is complete."""
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
        self._store_at = 0.0

    def connect(self, reports: Reports) -> None:
        """Say where watermarks go. Legal once, before ``run``."""
        self._reports = reports

    async def run(self) -> None:
        """Pass after pass until cancelled. Legal after ``start``."""
        while True:
            await self.wake.wait(max(PASS_S_MIN, self.enforcer.next_look_s()))
            try:
                sentence = await self.once()
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
        snapshot, commits = self._state.load(_incarnation())
        stamp = await self._kernel.stamp()
        number = _stamp_number(stamp, self._prefix(snapshot.incarnation))
        newest = commits[-1].number if commits else snapshot.number
        if number > newest:
            # The disk was full, or lost something: what it says is older than what is in force.
            log.warning("the table is newer than the state on disk", table=number, disk=newest)
            snapshot, commits, newest = Snapshot(incarnation=_incarnation()), [], 0
        known = number if stamp and not stamp.endswith(nft.UNFINISHED) else NO_COMMIT
        self.number, self._incarnation = newest, snapshot.incarnation
        self.enforcer.prefix = self._prefix(snapshot.incarnation)
        self._restore(snapshot)
        seen = dict(self.intent.composite.entries) if known == snapshot.number else None
        for commit in commits:
            self._replay(commit)
            if commit.number == known:
                seen = dict(self.intent.composite.entries)
        self.desired.set_interest({*self.desired.namespaces, *self.intent.interest()})
        if seen is not None:
            self.enforcer.adopt(seen, known)
            log.info("adopted the table", revision=known)
        elif stamp is not None and not self._all_complete():
            self._hands_off = True
            log.warning("found a table that is not known; it stays in force until the intent is complete")
        self._touched |= self.intent.composite.entries.keys()
        if not self._hands_off:
            try:
                await self.enforcer.bring((), self.desired.namespaces, self.number, certain=False)
            except Retryable as err:
                log.warning("the first pass failed", reason=str(err))
        self._store()
        self.wake.set()

    def _prefix(self, incarnation: str) -> str:
        """Of the stamp: another state directory, rendering or site means another table."""
        return f"{incarnation}.{skeleton.VERSION}.{short_hash(repr(self.intent.site))}"

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
            number=self.number,
            incarnation=self._incarnation,
            manifests={store.scope.path: store.manifest for store in stores if store.manifest is not None},
            items={store.scope.path: store.held for store in stores},
            slots=self.intent.slots,
        )

    # ---- a pass -----------------------------------------------------------------------------------------------

    async def once(self) -> str:
        """One pass. Returns a sentence about it, empty if there was nothing to do. Raises ``Retryable``."""
        ready = [store for store in self.desired.stores() if store.pending and store.in_sync]
        before = self.intent.ports() if ready else {}
        commit = self._take(ready)
        if commit is not None:
            self._record(commit)
            now = self.intent.ports()
            self._departed.update({uid: port for uid, port in before.items() if uid not in now})
        rendered, namespaces = self.intent.render()
        self._touched |= rendered
        self._judged |= namespaces
        if self._hands_off and self._all_complete():
            self._hands_off = False
        changes = 0
        if not self._hands_off:
            # First the routes: an address that no policy knows any more is not reached.
            for uid in sorted(self._departed):
                self.enforcer.disconnect(self._departed[uid])
            self._departed.clear()
            certain = self.desired.host.in_sync and self.desired.cluster.in_sync
            changes = await self.enforcer.bring(self._touched, self._judged, self.number, certain=certain)
            self._judged.clear()
        self._resolver.want(self._records(self._touched))
        self._touched.clear()
        await self._resolver.sync()
        if not self._hands_off:
            self._acknowledge()
            await self._compact()
        self._settle()
        return "" if commit is None else f"commit {commit.number}: {len(commit.scopes)} scopes, {changes} changes"

    def _record(self, commit: Commit) -> None:
        """Journal, then memory. A disk that is full or broken stops neither: the kernel then is ahead of it."""
        self.number = commit.number
        try:
            self._state.append(commit)
        except Retryable as err:
            log.error("the intent cannot be stored; enforcing it all the same", reason=str(err))
        for path in sorted(commit.scopes):
            self.intent.change(path, commit.scopes[path].changes)
        for path in commit.forgotten:
            self.intent.forget(path)

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
            self.reported.pop(path, None)
        return Commit(self.number + 1, scopes, tuple(forgotten))

    def _all_complete(self) -> bool:
        return all(store.complete for store in self.desired.stores())

    def _acknowledge(self) -> None:
        """Watermarks for scopes whose state in the kernel is new."""
        if self._reports is None:
            return
        now = self._clock.now()
        for store in self.desired.stores():
            path, manifest = store.scope.path, store.manifest
            if manifest is None:
                continue
            failures = self._failures(path)
            before = self.reported.get(path)
            if before == (manifest, failures):
                continue
            if before is not None and before[0].revision < manifest.revision:  # catching up is no latency of ours
                self._meter.committed(path.partition("/")[0], max(0.0, now - manifest.changed_at))
            self.reported[path] = (manifest, failures)
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
        for key, reason in self.enforcer.failed.items():
            owner = self.intent.composite.owner_of(key)
            if owner == path or owner.startswith(f"{path}:"):
                item = owner.partition(":")[2] or "policy"
                found[item] = Failure(key=item, reason=reason)
        listed = [found[key] for key in sorted(found)]
        if len(listed) > FAILURES_MAX:
            more = f"{len(listed) - FAILURES_MAX} more items are not in force"
            listed = [*listed[:FAILURES_MAX], Failure(key="...", reason=more)]
        return tuple(listed)

    def _records(self, keys: Iterable[Key]) -> dict[RecordKey, tuple[str, ...] | None]:
        entries = self.intent.composite.entries
        found = {key: entries.get(key) for key in keys if isinstance(key, RecordKey)}
        return {key: value if isinstance(value, tuple) else None for key, value in found.items()}

    async def _compact(self) -> None:
        if self._state.wants_compaction and self._clock.monotonic() >= self._store_at:
            await self.enforcer.mark(self.number)
            self._store()

    def _store(self) -> None:
        """Everything into a new snapshot; a disk that refuses is tried again later."""
        try:
            self._state.start(self._snapshot())
        except Retryable as err:
            log.error("the intent cannot be stored", reason=str(err))
            self._store_at = self._clock.monotonic() + STORE_AGAIN_S

    # ---- others -----------------------------------------------------------------------------------------------

    def drift(self) -> None:
        """Callback: somebody else changed our table."""
        self.enforcer.drift()
        self.wake.set()

    def suspect(self) -> None:
        """Callback: links, routes or neighbours of ours may be missing."""
        self.enforcer.suspect()
        self.wake.set()

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


def _incarnation() -> str:
    return uuid.uuid4().hex[:12]


def _stamp_number(stamp: str | None, prefix: str) -> int:
    """Number of the commit that a stamp of ours names, ``NO_COMMIT`` if it is none of ours."""
    before, _, number = (stamp or "").removesuffix(nft.UNFINISHED).rpartition(".")
    return int(number) if before == prefix and number.isdigit() else NO_COMMIT

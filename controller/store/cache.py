"""The in-memory copy of the registry: one etcd watch feeds indexes, subscribers and the watchers' event logs.

Laws: events are applied in revision order; all events of a revision are in before ``revision`` reaches it; what is
served is bytes, decoded only once, when indexed. After a lost connection the watch resumes at the next revision; after
a compaction the registry is listed again and the difference is what subscribers see.
"""

import asyncio
import contextlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger
from common.tasks import backoff_s
from controller.kinds.kind import ResourceKey
from controller.store.entry import (
    PREFIX,
    Complete,
    Entry,
    FieldsOf,
    key_for,
    make_entry,
    parse_key,
)
from controller.store.etcd import Compacted, Kv, Unavailable, prefix_end
from controller.store.eventlog import Change, EventLog, Expired, LoggedEvent, Unsubscribe
from controller.store.proto import etcd_pb2 as pb

__all__ = ["Cache", "Change", "Entry", "Expired", "LoggedEvent"]

log = logger("cache")
PAGE_LIMIT = 500
GAP_S = 5.0
"""An interruption shorter than this keeps nobody from renewing a lease."""
_START = PREFIX.encode()
_END = prefix_end(_START)


# ``Cache`` has a method called list, which hides the type inside of the class.
Entries = list[Entry]
Subscribers = list[tuple[frozenset[ResourceKey] | None, Callable[[Change], None]]]
Changes = list[Change]


class Table:
    """All objects of one resource: sorted keys, entries, event log."""

    __slots__ = ("entries", "keys", "log")

    def __init__(self, floor: int) -> None:
        self.keys: list[str] = []
        self.entries: dict[str, Entry] = {}
        self.log = EventLog(floor)

    def put(self, entry: Entry) -> None:
        if entry.key not in self.entries:
            insort(self.keys, entry.key)
        self.entries[entry.key] = entry

    def remove(self, key: str) -> None:
        if self.entries.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def select(self, prefix: str) -> list[Entry]:
        entries = self.entries
        if not prefix:
            return [entries[key] for key in self.keys]
        low = bisect_left(self.keys, prefix)
        high = bisect_left(self.keys, prefix[:-1] + chr(ord(prefix[-1]) + 1), low)
        return [entries[key] for key in self.keys[low:high]]


class Cache:
    """Everything stored, in memory, at ``revision``."""

    def __init__(self, etcd: Kv, clock: Clock, fields_of: FieldsOf) -> None:
        self._etcd = etcd
        self._clock = clock
        self._fields_of = fields_of
        self.revision = 0
        self.cluster_id = 0
        """etcd's cluster id; another one means another, or restored, data directory."""
        self.connected = False
        """Whether the watch stands right now."""
        self.compacted = 0
        """States before this revision are not served any more, as etcd does not have them either."""
        self._lost_at = float("-inf")
        self._observing_since = 0.0
        self._synced = asyncio.Event()
        self._floor = 0
        self._tables: dict[ResourceKey, Table] = {}
        self._by_uid: dict[str, Entry] = {}
        self._subscribers: Subscribers = []
        self._revision_waiters: dict[asyncio.Future[None], int] = {}
        self._completions: dict[ResourceKey, Complete] = {}

    # Reading

    def table(self, resource: ResourceKey) -> Table:
        """The resource's table, made when missing (a resource without objects can still be watched)."""
        found = self._tables.get(resource)
        if found is None:
            found = self._tables[resource] = Table(self._floor)
        return found

    def get(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None:
        """One object, or None."""
        found = self._tables.get(resource)
        return found.entries.get(key_for(resource, namespace, name)) if found else None

    def list(self, resource: ResourceKey, namespace: str | None = None) -> Entries:
        """All objects of the resource, or of one namespace of it, sorted by key."""
        found = self._tables.get(resource)
        if found is None:
            return []
        return found.select("" if namespace is None else key_for(resource, namespace, ""))

    def list_at(self, resource: ResourceKey, namespace: str | None, revision: int) -> Entries:
        """As ``list``, as it was at ``revision``, by undoing logged events. Raises ``Expired``."""
        if revision < self.compacted:
            raise Expired
        table = self.table(resource)
        later = table.log.since(table.log.cursor_after(revision))
        entries = self.list(resource, namespace)
        if not later:
            return entries
        prefix = key_for(resource, namespace, "") if namespace is not None else ""
        then = {entry.key: entry for entry in entries}
        for event in reversed(later):
            change = event.change
            if not change.entry.key.startswith(prefix):
                continue
            if change.old is None:
                then.pop(change.entry.key, None)
            else:
                then[change.old.key] = change.old
        return [then[key] for key in sorted(then)]

    def by_uid(self, uid: str) -> Entry | None:
        """The object with this uid, or None."""
        return self._by_uid.get(uid)

    def resources(self) -> dict[ResourceKey, int]:
        """How many objects each resource has, and watchers of it are in ``table(...).log.watchers``."""
        return {key: len(table.entries) for key, table in self._tables.items()}

    def watchers(self) -> dict[ResourceKey, int]:
        """How many watches wait on each resource."""
        return {key: table.log.watchers for key, table in self._tables.items()}

    def subscribe(self, resources: Iterable[ResourceKey] | None, callback: Callable[[Change], None]) -> Unsubscribe:
        """Call ``callback`` for every later change (of all resources when None), in revision order.

        It runs inside the cache's loop: it may only mark dirty. Returns the function that ends it.
        """
        item = (None if resources is None else frozenset(resources), callback)
        self._subscribers.append(item)

        def unsubscribe() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(item)

        return unsubscribe

    def read_with(self, resource: ResourceKey, complete: Complete | None) -> None:
        """Read objects of the resource with ``complete`` (None: as they are) from now on; those here are read again.

        Their revisions stay, and nobody is told: it is how they are served that has changed, not what is stored.
        """
        if complete is None:
            self._completions.pop(resource, None)
        else:
            self._completions[resource] = complete
        entries = self.table(resource).entries
        for key, old in entries.items():
            entry = make_entry(key, old.stored, old.revision, self._fields_of, self._completions)
            entries[key] = self._by_uid[entry.uid] = entry

    async def wait_synced(self) -> None:
        """Until the registry was read once."""
        await self._synced.wait()

    async def wait_revision(self, revision: int) -> None:
        """Until every event up to ``revision`` is in. Waits as long as it takes: bound it with a timeout."""
        if self.revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._revision_waiters[future] = revision
        try:
            await future
        finally:
            self._revision_waiters.pop(future, None)

    # Feeding

    async def run(self) -> None:
        """Follow etcd until cancelled; every failure of etcd is waited out."""
        failures = 0
        relist = True
        while True:
            try:
                if relist:
                    await self._relist()
                    relist = False
                async for response in self._etcd.watch(_START, _END, self.revision + 1):
                    if not self.connected:
                        self._observe()
                    failures, self.connected = 0, True
                    self._apply(response)
            except Compacted as err:
                log.warning("etcd compacted what was not read yet, listing again", reason=str(err))
                relist = True
            except Retryable as err:
                failures += 1
                if failures in (1, 5) or failures % 30 == 0:
                    log.warning("etcd is away, retrying", reason=str(err), failures=failures)
            finally:
                if self.connected:
                    self._lost_at = self._clock.now()
                self.connected = False
            await self._clock.sleep(backoff_s(max(1, failures), cap_s=1.0))

    def _observe(self) -> None:
        log.info("following etcd", revision=self.revision)
        now = self._clock.now()
        if now - self._lost_at > GAP_S:
            self._observing_since = now

    @property
    def observing_since(self) -> float:
        """Since when etcd has been followed without a gap, in seconds since the epoch; the present while it is not.

        Whoever judges others by their silence must not count what could not be heard, or not be written.
        """
        return self._observing_since if self.connected else self._clock.now()

    async def _relist(self) -> None:
        """Read everything at one revision; on a repeated call feed the difference to log and subscribers."""
        found: dict[str, Entry] = {}
        revision, start = 0, _START
        while True:
            page = await self._etcd.range(start, _END, limit=PAGE_LIMIT, revision=revision)
            revision = revision or page.header.revision
            for kv in page.kvs:
                entry = self._entry(kv)
                if entry is not None:
                    found[entry.key] = entry
            if not page.more:
                break
            start = page.kvs[-1].key + b"\x00"
        if self.cluster_id not in (0, page.header.cluster_id) or revision < self.revision:
            raise AssertionError("etcd was replaced by another one; restart to serve its data")
        self.cluster_id = page.header.cluster_id
        if not self._synced.is_set():
            self._load(found, revision)
            log.info("registry loaded", revision=revision, objects=len(found))
            self._synced.set()
        else:
            self._difference(found, revision)
        self._reached(revision)

    def _load(self, found: dict[str, Entry], revision: int) -> None:
        self._floor = revision
        for table in self._tables.values():
            table.log.floor = revision
        for entry in found.values():
            table = self.table(entry.resource)
            table.keys.append(entry.key)
            table.entries[entry.key] = entry
            self._by_uid[entry.uid] = entry
        for table in self._tables.values():
            table.keys.sort()

    def _difference(self, found: dict[str, Entry], revision: int) -> None:
        changes: Changes = []
        for table in self._tables.values():
            for key, old in table.entries.items():
                if key not in found:
                    changes.append(Change("DELETED", old.deleted_at(revision), old, revision))
        for entry in found.values():
            before = self.table(entry.resource).entries.get(entry.key)
            if before is None:
                changes.append(Change("ADDED", entry, None, entry.revision))
            elif before.revision != entry.revision:
                changes.append(Change("MODIFIED", entry, before, entry.revision))
        for change in sorted(changes, key=lambda c: (c.revision, c.entry.key)):
            self._change(change)
        for table in self._tables.values():
            table.log.wake()

    def _entry(self, kv: pb.KeyValue) -> Entry | None:
        try:
            return make_entry(kv.key.decode(), kv.value, kv.mod_revision, self._fields_of, self._completions)
        except (ValueError, KeyError, TypeError) as err:
            # One foreign or damaged value must not take the whole control plane down.
            log.error("ignoring a value that is not an object", key=kv.key.decode(errors="replace"), reason=str(err))
            return None

    def _apply(self, response: pb.WatchResponse) -> None:
        touched: dict[ResourceKey, Table] = {}
        for event in response.events:
            change = self._to_change(event)
            if change is not None:
                self._change(change)
                touched[change.entry.resource] = self.table(change.entry.resource)
        # The header may be ahead of the events while a watch catches up; only a response without events vouches for it.
        if response.events:
            self._reached(response.events[-1].kv.mod_revision)
        elif not response.created:
            self._reached(response.header.revision)
        for table in touched.values():
            table.log.wake()

    def _to_change(self, event: pb.Event) -> Change | None:
        revision = event.kv.mod_revision
        if revision <= self.revision:
            return None
        if event.type == pb.Event.DELETE:
            key = event.kv.key.decode()
            try:
                old = self.table(parse_key(key)[0]).entries.get(key)
            except ValueError:
                return None
            return Change("DELETED", old.deleted_at(revision), old, revision) if old else None
        entry = self._entry(event.kv)
        if entry is None:
            return None
        before = self.table(entry.resource).entries.get(entry.key)
        return Change("MODIFIED" if before else "ADDED", entry, before, revision)

    def _change(self, change: Change) -> None:
        entry = change.entry
        table = self.table(entry.resource)
        if change.old is not None and change.old.uid != entry.uid:
            self._by_uid.pop(change.old.uid, None)
        if change.type == "DELETED":
            table.remove(entry.key)
            self._by_uid.pop(entry.uid, None)
        else:
            table.put(entry)
            self._by_uid[entry.uid] = entry
        table.log.append(change)
        for resources, callback in tuple(self._subscribers):
            if resources is None or entry.resource in resources:
                callback(change)

    def _reached(self, revision: int) -> None:
        if revision <= self.revision:
            return
        self.revision = revision
        for future, wanted in tuple(self._revision_waiters.items()):  # in the order in which they came
            if wanted <= revision and not future.done():
                future.set_result(None)


async def wait_for_etcd(etcd: Kv, clock: Clock) -> None:
    """Until etcd answers, saying now and then in the log what is waited for."""
    failures = 0
    while True:
        try:
            status = await etcd.status()
        except Unavailable as err:
            failures += 1
            if failures in (1, 5) or failures % 30 == 0:
                log.warning("waiting for etcd", reason=str(err), failures=failures)
            await clock.sleep(backoff_s(failures, cap_s=1.0))
        else:
            log.info("etcd answers", version=status.version)
            return

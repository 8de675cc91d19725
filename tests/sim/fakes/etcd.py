"""An etcd in memory: revisions, transactions, history, compaction, watches. What it may do wrong is what etcd may do.

Held to the real one by ``tests/contract/test_etcd_contract.py``. Faults on demand: requests that take long or find
nobody, answers that get lost after the write happened, watches that lag, break or start before what is left.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from common.clock import Clock
from controller.store.etcd import Compacted, Unavailable
from controller.store.proto import etcd_pb2 as pb

CLUSTER_ID = 4242
PROGRESS_S = 600.0
"""How often an idle watch is told the revision, as etcd does by default."""


@dataclass(frozen=True, slots=True)
class Version:
    """A key at one revision; ``value`` None is a deletion."""

    key: bytes
    value: bytes | None
    revision: int
    created: int
    count: int

    def kv(self, *, keys_only: bool = False) -> pb.KeyValue:
        value = b"" if keys_only or self.value is None else self.value
        if self.value is None:
            return pb.KeyValue(key=self.key, mod_revision=self.revision)
        return pb.KeyValue(
            key=self.key, value=value, create_revision=self.created, mod_revision=self.revision, version=self.count
        )


@dataclass
class EtcdOptions:
    """How badly it behaves. Delays are the upper ends of uniform ranges, in seconds."""

    request_delay_s: float = 0.0
    watch_delay_s: float = 0.0
    lost_request: float = 0.0
    lost_answer: float = 0.0


@dataclass
class EtcdServer:
    """The data, which outlives every client. ``observers`` are called with all versions of each new revision."""

    revision: int = 1
    compacted: int = 0
    up: bool = True
    up_since: float = 0.0
    observers: list[Callable[[list[Version]], None]] = field(default_factory=list)
    _keys: dict[bytes, list[Version]] = field(default_factory=dict)
    _history: list[list[Version]] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _generation: int = 0

    # Faults

    def stop(self) -> None:
        self.up = False
        self.break_watches()

    def start(self) -> None:
        self.up = True

    def restart_at(self, moment: float) -> None:
        """Start, and remember since when it has been up."""
        if not self.up:
            self.up_since = moment
        self.start()

    def break_watches(self) -> None:
        """Every open watch stream ends."""
        self._generation += 1
        self._tell()

    # Data

    def header(self) -> pb.ResponseHeader:
        return pb.ResponseHeader(cluster_id=CLUSTER_ID, revision=self.revision)

    def at(self, key: bytes, revision: int = 0) -> Version | None:
        """The key as it is, or was at ``revision``; None when absent."""
        for version in reversed(self._keys.get(key, [])):
            if not revision or version.revision <= revision:
                return version if version.value is not None else None
        return None

    def select(self, key: bytes, range_end: bytes, revision: int = 0) -> list[Version]:
        """Sorted by key."""
        if not range_end:
            found = [self.at(key, revision)]
        else:
            names = sorted(name for name in self._keys if key <= name and (range_end == b"\0" or name < range_end))
            found = [self.at(name, revision) for name in names]
        return [version for version in found if version is not None]

    def range(self, request: pb.RangeRequest) -> pb.RangeResponse:
        if request.revision and request.revision < self.compacted:
            raise Compacted(0)
        if request.revision > self.revision:
            raise Unavailable("etcd: out of range: required revision is a future revision")
        found = self.select(request.key, request.range_end, request.revision)
        page = found[: request.limit] if request.limit else found
        return pb.RangeResponse(
            header=self.header(),
            kvs=[version.kv(keys_only=request.keys_only) for version in page],
            more=len(page) < len(found),
            count=len(found),
        )

    def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        succeeded = all(self._holds(compare) for compare in request.compare)
        written: list[Version] = []
        responses = [self._operate(op, written) for op in (request.success if succeeded else request.failure)]
        if written:
            self.revision += 1
            self._history.append(written)
            for version in written:
                self._keys.setdefault(version.key, []).append(version)
            for observer in self.observers:
                observer(written)
            self._tell()
        return pb.TxnResponse(header=self.header(), succeeded=succeeded, responses=responses)

    def _holds(self, compare: pb.Compare) -> bool:
        if (compare.result, compare.target) != (pb.Compare.EQUAL, pb.Compare.MOD):
            raise NotImplementedError("only equality of mod revisions is compared")
        version = self.at(compare.key)
        return (version.revision if version is not None else 0) == compare.mod_revision

    def _operate(self, op: pb.RequestOp, written: list[Version]) -> pb.ResponseOp:
        kind = op.WhichOneof("request")
        if kind == "request_range":
            return pb.ResponseOp(response_range=self.range(op.request_range))
        if kind == "request_put":
            key, old = op.request_put.key, self.at(op.request_put.key)
            created, count = (old.created, old.count + 1) if old is not None else (self.revision + 1, 1)
            written.append(Version(key, op.request_put.value, self.revision + 1, created, count))
            return pb.ResponseOp()
        for old in self.select(op.request_delete_range.key, op.request_delete_range.range_end):
            written.append(Version(old.key, None, self.revision + 1, 0, 0))
        return pb.ResponseOp()

    def compact(self, revision: int) -> None:
        if revision <= self.compacted:
            raise Compacted(0)
        if revision > self.revision:
            raise Unavailable("etcd: out of range: required revision is a future revision")
        self.compacted = revision
        self._history = [written for written in self._history if written[0].revision >= revision]
        for key, versions in list(self._keys.items()):
            kept = [version for version in versions if version.revision > revision]
            standing = [version for version in versions if version.revision <= revision][-1:]
            kept = [*(version for version in standing if version.value is not None), *kept]
            if kept:
                self._keys[key] = kept
            else:
                del self._keys[key]

    def since(self, revision: int) -> list[list[Version]]:
        """Revisions from ``revision`` on, in order."""
        return [written for written in self._history if written[0].revision >= revision]

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def wait_news(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return

    @property
    def generation(self) -> int:
        return self._generation


class EtcdClient:
    """Has the face of ``controller.store.etcd.Etcd``."""

    def __init__(self, server: EtcdServer, clock: Clock, rng: random.Random, options: EtcdOptions) -> None:
        self._server = server
        self._clock = clock
        self._rng = rng
        self.options = options
        self.dead = False
        """The process that holds it has died: whatever it still asks for never arrives."""

    async def close(self) -> None:
        """Nothing is held."""

    async def range(
        self, key: bytes, range_end: bytes = b"", *, limit: int = 0, revision: int = 0, serializable: bool = False
    ) -> pb.RangeResponse:
        await self._arrive()
        request = pb.RangeRequest(key=key, range_end=range_end, limit=limit, revision=revision)
        response = self._server.range(request)
        await self._return()
        return response

    async def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        await self._arrive()
        response = self._server.txn(request)
        await self._return()
        return response

    async def compact(self, revision: int) -> None:
        await self._arrive()
        self._server.compact(revision)
        await self._return()

    async def status(self) -> pb.StatusResponse:
        await self._arrive()
        return pb.StatusResponse(header=self._server.header(), version="3.4.0-fake")

    async def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[pb.WatchResponse]:
        await self._arrive()
        server, generation = self._server, self._server.generation
        following = start_revision or server.revision + 1
        yield pb.WatchResponse(header=server.header(), created=True)
        while True:
            if server.generation != generation:
                raise Unavailable("etcd: the watch stream ended")
            if following < server.compacted and following <= server.revision:
                raise Compacted(server.compacted)
            pending = server.since(following)
            if not pending:
                reached = server.revision
                await server.wait_news(PROGRESS_S)
                if server.generation == generation and server.revision == reached:
                    yield pb.WatchResponse(header=server.header())
                continue
            await self._lag()
            if server.generation != generation:
                continue
            taken = pending[: self._rng.randint(1, len(pending))]
            following = taken[-1][0].revision + 1
            events = [
                pb.Event(type=pb.Event.DELETE if version.value is None else pb.Event.PUT, kv=version.kv())
                for written in taken
                for version in written
                if key <= version.key and (range_end == b"\0" or version.key < range_end or version.key == key)
            ]
            if events:
                yield pb.WatchResponse(header=server.header(), events=events)

    async def _arrive(self) -> None:
        """On the way there. A request may never arrive."""
        await self._clock.sleep(self._rng.uniform(0, self.options.request_delay_s))
        if self.dead or not self._server.up or self._rng.random() < self.options.lost_request:
            raise Unavailable("etcd: unavailable: connection refused")

    async def _return(self) -> None:
        """On the way back. The write has happened whatever becomes of the answer."""
        await self._clock.sleep(self._rng.uniform(0, self.options.request_delay_s))
        if self._rng.random() < self.options.lost_answer:
            raise Unavailable("etcd: unavailable: connection reset")

    async def _lag(self) -> None:
        if self.options.watch_delay_s:
            await self._clock.sleep(self._rng.uniform(0, self.options.watch_delay_s))

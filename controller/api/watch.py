"""watch: a cursor in the resource's event log; frames are shared bytes, joined into one write per wake-up."""

import random
from collections.abc import Callable, Iterable

import orjson

from controller.api import table
from controller.api.negotiate import negotiate
from controller.api.ports import Ports
from controller.api.reads import body_of
from controller.api.request import Request, Stream, Write
from controller.api.selection import ALL, Selection, parse_revision, selection_of
from controller.api.status import ApiError, bad_request, invalid, too_old
from controller.kinds.kind import FieldError, Kind, Object
from controller.store.cache import Entry, Expired
from controller.store.entry import key_for
from controller.store.eventlog import ChangeType, EventLog, LoggedEvent, frame

BOOKMARK_S = 60.0
TIMEOUT_MIN_S = 1800
TIMEOUT_MAX_S = 86_400
WRITE_BYTES_MAX = 1 << 20
"""One write of a watcher that is far behind is at most about this long, so that it cannot hold the loop."""


async def watch(ports: Ports, request: Request, kind: Kind) -> Stream:
    """Start a watch. Bad options are refused before the stream begins; an expired version is its first event."""
    selection = selection_of(request, kind)
    form = negotiate(request.headers.get("Accept", ""), watching=True).form
    revision = parse_revision(request.text("resourceVersion"))
    initial = _initial_events(request, revision)
    if revision is None or (initial and revision == 0):
        await ports.fresh()
    elif revision:
        await ports.at_least(revision)
    encoder = _Encoder(ports, request, kind, form)
    session = _Session(ports, request, kind, selection, encoder)
    return Stream(lambda write: session.run(write, revision, initial), "application/json")


def _initial_events(request: Request, revision: int | None) -> bool:
    """Whether the stream starts with the present state. Raises ``ApiError`` 422 for options that do not go together."""

    def refuse(path: str, detail: str) -> ApiError:
        return invalid("meta.k8s.io", "ListOptions", "", [FieldError("FieldValueForbidden", path, detail)])

    match, given = request.text("resourceVersionMatch"), "sendInitialEvents" in request.query
    if not given:
        if match:
            raise refuse(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        return not revision
    if match != "NotOlderThan":
        raise refuse("resourceVersionMatch", "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    return request.flag("sendInitialEvents")


class _Encoder:
    """Frames of one watcher. Whole objects share the log's frames; tables and metadata are made per watcher."""

    def __init__(self, ports: Ports, request: Request, kind: Kind, form: str) -> None:
        self._kind = kind
        self._now = ports.clock.now
        self._include = request.text("includeObject", "Metadata")
        self._headers = True
        self.shared = form == "object" and kind.stored is None
        self._whole = form == "object"
        self._transform: Callable[[Object], Object] = self._table if form == "table" else table.partial

    def _table(self, obj: Object) -> Object:
        rows = [table.row(self._kind, obj, self._now(), self._include)]
        metadata = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
        made = table.table(self._kind, rows, metadata, headers=self._headers)
        self._headers = False
        return made

    def entry(self, entry: Entry) -> bytes:
        return frame("ADDED", entry.body) if self.shared else self._made("ADDED", entry.body)

    def event(self, event: LoggedEvent, as_type: ChangeType) -> bytes:
        return event.frame(as_type) if self.shared else self._made(as_type, event.body(as_type))

    def _made(self, as_type: str, body: bytes) -> bytes:
        body = body_of(self._kind, body)
        return frame(as_type, body if self._whole else orjson.dumps(self._transform(orjson.loads(body))))

    def bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        metadata: Object = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        obj: Object = {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}
        if not self._whole:
            obj = table.partial(obj) if self._transform is table.partial else table.table(self._kind, [], metadata)
        return frame("BOOKMARK", orjson.dumps(obj))


class _Session:
    """One running watch."""

    def __init__(self, ports: Ports, request: Request, kind: Kind, selection: Selection, encoder: _Encoder) -> None:
        self._cache = ports.cache
        self._clock = ports.clock
        self._kind = kind
        self._namespace = request.target.namespace if kind.namespaced and request.target.namespace else None
        self._prefix = key_for(kind.store_key, self._namespace, "") if self._namespace is not None else ""
        self._selection = ALL if selection.is_everything else selection
        self._encoder = encoder
        self._bookmarks = request.flag("allowWatchBookmarks")
        self._initial_bookmark = self._bookmarks and request.flag("sendInitialEvents")
        self._timeout_s = _timeout_s(request)

    async def run(self, write: Write, revision: int | None, initial: bool) -> None:
        """Write events until the time is up, the cursor expires, or the client leaves."""
        table_log = self._cache.table(self._kind.store_key).log
        try:
            if initial:
                cursor, at = table_log.end, self._cache.revision
                await self._send(write, self._initial())
                if self._initial_bookmark:
                    await write(self._encoder.bookmark(at, initial_end=True))
            else:
                cursor = table_log.cursor_after(revision or 0)
            await self._follow(write, table_log, cursor)
        except Expired:
            status = too_old(revision or 0, table_log.floor).status()
            await write(frame("ERROR", orjson.dumps(status)))

    def _initial(self) -> Iterable[bytes]:
        # A list of references, not a generator over the table: the table goes on changing while this is sent.
        entries = self._cache.list(self._kind.store_key, self._namespace)
        return (self._encoder.entry(entry) for entry in entries if self._selection.matches(entry))

    async def _follow(self, write: Write, table_log: EventLog, cursor: int) -> None:
        end_s = self._clock.monotonic() + self._timeout_s
        bookmark_s = self._clock.monotonic() + BOOKMARK_S * random.uniform(0.8, 1.2)
        while True:
            events = table_log.since(cursor)
            if events:
                cursor += len(events)
                await self._send(write, self._frames(events))
                continue
            now_s = self._clock.monotonic()
            if now_s >= end_s:
                if self._bookmarks:
                    await write(self._encoder.bookmark(self._cache.revision))
                return
            if self._bookmarks and now_s >= bookmark_s:
                await write(self._encoder.bookmark(self._cache.revision))
                bookmark_s = now_s + BOOKMARK_S
            until_s = min(end_s, bookmark_s) if self._bookmarks else end_s
            await table_log.wait(until_s - now_s)

    def _frames(self, events: list[LoggedEvent]) -> Iterable[bytes]:
        for event in events:
            as_type = self._judge(event)
            if as_type is not None:
                yield self._encoder.event(event, as_type)

    def _judge(self, event: LoggedEvent) -> ChangeType | None:
        """What this change is to this watcher: an object that enters or leaves its selection is added or deleted."""
        change = event.change
        if self._prefix and not change.entry.key.startswith(self._prefix):
            return None
        if self._selection is ALL:
            return change.type
        before = change.old is not None and self._selection.matches(change.old)
        after = change.type != "DELETED" and self._selection.matches(change.entry)
        if after:
            return "MODIFIED" if before else "ADDED"
        return "DELETED" if before else None

    async def _send(self, write: Write, frames: Iterable[bytes]) -> None:
        batch: list[bytes] = []
        size = 0
        for piece in frames:
            batch.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES_MAX:
                await write(b"".join(batch))
                batch, size = [], 0
        if batch:
            await write(b"".join(batch))


def _timeout_s(request: Request) -> float:
    text = request.text("timeoutSeconds")
    if not text:
        return TIMEOUT_MIN_S * random.uniform(1.0, 2.0)
    try:
        given = int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    return min(given, TIMEOUT_MAX_S) if given > 0 else TIMEOUT_MIN_S * random.uniform(1.0, 2.0)

"""What happened to one resource, bounded: watchers are cursors in it and never block anybody.

Law: an event's frames are encoded at most once per type and shared by every watcher.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from controller.store.entry import Entry, at_revision

ChangeType = Literal["ADDED", "MODIFIED", "DELETED"]
EVENTS_MAX = 4096
BYTES_MAX = 32 << 20
"""Whichever is reached first bounds a log; a cursor that falls out is told that it expired."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change. ``entry`` is the new state; of a DELETED one it is the last state at the deleting revision."""

    type: ChangeType
    entry: Entry
    old: Entry | None
    revision: int


@dataclass(slots=True)
class LoggedEvent:
    """A change with its shared encodings: watch frames by type, and whatever else a format key names."""

    change: Change
    frames: dict[str, bytes] = field(default_factory=dict)

    def frame(self, as_type: ChangeType) -> bytes:
        """The watch frame (JSON and a newline) that reports this change as ``as_type``.

        For a watcher whose selector the object has left, that is DELETED with the object as it was before.
        """
        found = self.frames.get(as_type)
        if found is None:
            found = self.frames[as_type] = frame(as_type, self.body(as_type))
        return found

    def body(self, as_type: ChangeType) -> bytes:
        """Object bytes to report with ``as_type``."""
        change = self.change
        if as_type == "DELETED" and change.type != "DELETED" and change.old is not None:
            return at_revision(change.old.body, change.revision)
        return change.entry.body


def frame(as_type: str, body: bytes) -> bytes:
    """One watch event on the wire (``metav1.WatchEvent``)."""
    return b'{"type":"%b","object":%b}\n' % (as_type.encode(), body)


class Expired(Exception):
    """The cursor points before the oldest event kept."""


class EventLog:
    """Ring of events with absolute sequence numbers, and the signal that wakes its watchers."""

    def __init__(self, floor: int) -> None:
        self.floor = floor
        """Every event later than this revision is in the log."""
        self._events: list[LoggedEvent] = []
        self._first = 0
        self._bytes = 0
        self._waiters: dict[asyncio.Future[None], None] = {}

    @property
    def end(self) -> int:
        """Sequence number that the next event will have."""
        return self._first + len(self._events)

    def append(self, change: Change) -> None:
        """Add one; revisions never go down. The caller wakes watchers when a whole revision is in."""
        self._events.append(LoggedEvent(change))
        self._bytes += _weight(change)
        if len(self._events) > EVENTS_MAX or self._bytes > BYTES_MAX:
            self._trim()

    def _trim(self) -> None:
        # A quarter at once, so that the cost of moving the rest is shared by many appends.
        count = max(1, len(self._events) // 4)
        for event in self._events[:count]:
            self._bytes -= _weight(event.change)
        self.floor = self._events[count - 1].change.revision
        del self._events[:count]
        self._first += count

    def clear(self, floor: int) -> None:
        """Forget everything up to ``floor``; every cursor expires."""
        self._first = self.end + 1
        self._events.clear()
        self._bytes = 0
        self.floor = floor
        self.wake()

    def since(self, cursor: int) -> list[LoggedEvent]:
        """Events from ``cursor`` on. Raises ``Expired``."""
        at = cursor - self._first
        if at < 0:
            raise Expired
        return self._events[at:]

    def cursor_after(self, revision: int) -> int:
        """Cursor at the first event later than ``revision``. Raises ``Expired`` when it may be gone."""
        if revision < self.floor:
            raise Expired
        low, high = 0, len(self._events)
        while low < high:
            middle = (low + high) // 2
            if self._events[middle].change.revision <= revision:
                low = middle + 1
            else:
                high = middle
        return self._first + low

    def wake(self) -> None:
        """Let every watcher look again."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float) -> bool:
        """Until ``wake``; False if ``timeout_s`` passed first."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters[waiter] = None
        handle = loop.call_later(max(0.0, timeout_s), _time_out, waiter)
        try:
            await waiter
        except TimeoutError:
            return False
        finally:
            handle.cancel()
            self._waiters.pop(waiter, None)
        return True

    @property
    def watchers(self) -> int:
        """How many wait right now."""
        return len(self._waiters)


def _time_out(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())


def _weight(change: Change) -> int:
    return len(change.entry.body) + (len(change.old.body) if change.old else 0)


Unsubscribe = Callable[[], None]

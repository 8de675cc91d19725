"""Events for users (core/v1 ``Event``), with repeats counted instead of stored again.

An event's name ends with the time at which it was first seen, as upstream's do: lists are in the order of names, and
clients that sort by whole seconds keep it. A restarted controller counts anew.
"""

import asyncio
import hashlib
from typing import Any

from common.clock import Clock, rfc3339
from common.logs import logger
from controller.api.status import ApiError, is_already_exists, is_conflict, is_not_found
from controller.runtime.client import Client
from controller.runtime.metrics import ControllerMetrics
from controller.runtime.resources import EVENTS
from controller.runtime.view import View
from controller.runtime.writes import EmitEvent

DELAY_S = 0.5
"""Nobody waits for an event, but what it tells of is still going on and needs etcd and this process."""
QUEUE_MAX = 4096
REPEAT_INTERVAL_S = 5.0
"""The same event is written at most this often; what came in between is lost, not queued."""
MESSAGE_LENGTH_MAX = 1024
SEEN_MAX = 8192
log = logger("events")


class Recorder:
    """``emit`` never blocks; ``run`` writes, one after the other, and gives up on what the API refuses."""

    def __init__(self, client: Client, view: View, clock: Clock, metrics: ControllerMetrics) -> None:
        self._metrics = metrics
        self._client = client
        self._view = view
        self._clock = clock
        self._queue: asyncio.Queue[tuple[EmitEvent, str, float]] = asyncio.Queue(QUEUE_MAX)
        self._last: dict[str, float] = {}
        self._names: dict[str, str] = {}

    def emit(self, event: EmitEvent, source: str) -> None:
        """Queue ``event`` as coming from component ``source``."""
        identity = identity_of(event, source)
        now = self._clock.monotonic()
        if now - self._last.get(identity, -REPEAT_INTERVAL_S) < REPEAT_INTERVAL_S:
            return
        if len(self._last) >= SEEN_MAX:
            oldest = next(iter(self._last))
            del self._last[oldest]
            self._names.pop(oldest, None)
        self._last[identity] = now
        try:
            self._queue.put_nowait((event, source, self._clock.now()))
        except asyncio.QueueFull:
            self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Write queued events until cancelled."""
        while True:
            event, source, seen_at = await self._queue.get()
            await self._clock.sleep(max(0.0, min(DELAY_S, seen_at + DELAY_S - self._clock.now())))
            try:
                await self._write(event, source, seen_at)
            except ApiError as err:
                if not (is_not_found(err) or is_conflict(err) or is_already_exists(err) or err.code in (403, 410)):
                    log.warning("event not written", reason=str(err))

    async def _write(self, event: EmitEvent, source: str, seen_at: float) -> None:
        fresh = event_object(event, source, seen_at)
        meta, identity = fresh["metadata"], identity_of(event, source)
        meta["name"] = self._names.get(identity, meta["name"])
        known = self._view.get(EVENTS, meta["namespace"], meta["name"])
        if known is None:
            await self._client.create(EVENTS, fresh)
            self._names[identity] = meta["name"]
            return
        bump = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": fresh["lastTimestamp"]}
        await self._client.patch(EVENTS, meta["namespace"], meta["name"], bump, "application/merge-patch+json")


def identity_of(event: EmitEvent, source: str) -> str:
    """The same words about the same object are the same event, and counted."""
    meta = event.regarding["metadata"]
    text = "\0".join([meta.get("uid", ""), source, event.type, event.reason, event.message])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def event_object(event: EmitEvent, source: str, now: float) -> dict[str, Any]:
    """A new core/v1 Event. Those about cluster-scoped objects live in ``default``."""
    about = event.regarding
    meta = about["metadata"]
    stamp = rfc3339(now)
    name = f"{meta['name'][:230]}.{int(now * 1e9):x}"
    reference = {
        "apiVersion": about.get("apiVersion", ""),
        "kind": about.get("kind", ""),
        "name": meta["name"],
        "uid": meta.get("uid", ""),
        "resourceVersion": meta.get("resourceVersion", ""),
    }
    if meta.get("namespace"):
        reference["namespace"] = meta["namespace"]
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": meta.get("namespace") or "default"},
        "involvedObject": reference,
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MESSAGE_LENGTH_MAX],
        "source": {"component": source},
        "reportingComponent": source,
        "reportingInstance": "",
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }

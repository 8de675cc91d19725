"""Events for users (core/v1 ``Event``), with repeats counted instead of stored again.

An event's name is a hash of who, what and why, so that a restarted controller goes on counting.
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
        self._queue: asyncio.Queue[tuple[EmitEvent, str]] = asyncio.Queue(QUEUE_MAX)
        self._last: dict[tuple[str, str], float] = {}

    def emit(self, event: EmitEvent, source: str) -> None:
        """Queue ``event`` as coming from component ``source``."""
        identity = (name_of(event, source), event.regarding["metadata"].get("namespace", ""))
        now = self._clock.monotonic()
        if now - self._last.get(identity, -REPEAT_INTERVAL_S) < REPEAT_INTERVAL_S:
            return
        if len(self._last) >= SEEN_MAX:
            self._last.pop(next(iter(self._last)))
        self._last[identity] = now
        try:
            self._queue.put_nowait((event, source))
        except asyncio.QueueFull:
            self._metrics.events_dropped.inc()

    async def run(self) -> None:
        """Write queued events until cancelled."""
        while True:
            event, source = await self._queue.get()
            try:
                await self._write(event, source)
            except ApiError as err:
                if not (is_not_found(err) or is_conflict(err) or is_already_exists(err) or err.code in (403, 410)):
                    log.warning("event not written", reason=str(err))

    async def _write(self, event: EmitEvent, source: str) -> None:
        fresh = event_object(event, source, self._clock.now())
        meta = fresh["metadata"]
        known = self._view.get(EVENTS, meta["namespace"], meta["name"])
        if known is None:
            await self._client.create(EVENTS, fresh)
            return
        bump = {"count": int(known.get("count") or 1) + 1, "lastTimestamp": fresh["lastTimestamp"]}
        await self._client.patch(EVENTS, meta["namespace"], meta["name"], bump, "application/merge-patch+json")


def name_of(event: EmitEvent, source: str) -> str:
    """``<object>.<16 hex digits>``: the same words about the same object have the same name."""
    meta = event.regarding["metadata"]
    text = "\0".join([meta.get("uid", ""), source, event.type, event.reason, event.message])
    return f"{meta['name'][:230]}.{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def event_object(event: EmitEvent, source: str, now: float) -> dict[str, Any]:
    """A new core/v1 Event. Those about cluster-scoped objects live in ``default``."""
    about = event.regarding
    meta = about["metadata"]
    stamp = rfc3339(now)
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
        "metadata": {"name": name_of(event, source), "namespace": meta.get("namespace") or "default"},
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

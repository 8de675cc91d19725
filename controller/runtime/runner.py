"""Runs reconcilers: queue -> wait until own writes are seen -> plan (pure) -> apply -> look again when told to.

Laws: nothing happens before the cache is in sync. A key is planned again only on a view that contains every write
made for it before, so no plan needs to guess what is still under way. Conflicts and absent objects are no errors:
the view was behind, the change that made it so dirties the key again.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Protocol, assert_never

from common.clock import Clock
from common.errors import Retryable, Terminal
from common.logs import logger
from common.tasks import KeyQueue
from controller.api.status import ApiError, is_already_exists, is_conflict, is_not_found
from controller.kinds.kind import ResourceKey
from controller.runtime.client import Client
from controller.runtime.events import Recorder
from controller.runtime.metrics import ControllerMetrics
from controller.runtime.reconciler import EVERYTHING, Map, Reconciler
from controller.runtime.view import Failure, Reader, View
from controller.runtime.writes import Create, Delete, EmitEvent, Patch, Plan, Update, UpdateStatus, Write
from controller.store.cache import Change

PARALLEL_MAX = 16
"""Writes of the same type that stand together in a plan are independent and go out this many at a time."""
STALE_DELAY_S = 0.02
log = logger("reconcilers")


class LiveReader(Reader, Protocol):
    """A cache that can be waited for."""

    @property
    def observing_since(self) -> float: ...

    def resources(self) -> Mapping[ResourceKey, int]: ...

    async def wait_synced(self) -> None: ...

    async def wait_revision(self, revision: int) -> None: ...


class Refused(Retryable):
    """The API refused a write; planned again after a delay, with the refusal in view."""


class Runner:
    """One reconciler's queue and workers."""

    def __init__(
        self,
        reconciler: Reconciler,
        cache: LiveReader,
        view: View,
        client: Client,
        recorder: Recorder,
        clock: Clock,
        acknowledged: Callable[[], int],
        metrics: ControllerMetrics,
    ) -> None:
        """``acknowledged`` is the newest revision that this process was told of by a write."""
        self._acknowledged = acknowledged
        self._metrics = metrics
        self._reconciler = reconciler
        self._cache = cache
        self._view = view
        self._client = client
        self._recorder = recorder
        self._clock = clock
        self._queue: KeyQueue[str] = KeyQueue(clock)
        self._written: dict[str, int] = {}
        metrics.queue_depth.labels(reconciler.name).set_function(lambda: float(len(self._queue)))

    async def run(self) -> None:
        """Work until cancelled. The view must be connected."""
        await self._cache.wait_synced()
        stops = [self._follow(resource, mapping) for resource, mapping in self._reconciler.watches.items()]
        try:
            await self._queue.run(self._work)
        finally:
            for stop in stops:
                stop()

    def statistics(self) -> dict[str, int]:
        return {"queued": len(self._queue), "waiting_for_own_writes": len(self._written)}

    def _follow(self, resource: ResourceKey, mapping: Map) -> Callable[[], None]:
        def on_change(change: Change) -> None:
            try:
                keys = tuple(mapping(self._view, change))
            except (Terminal, ValueError, KeyError, TypeError) as err:
                # One odd object must not stop the cache for all the others.
                self._metrics.reconcile_errors.labels(self._reconciler.name, "mapping").inc()
                log.error(
                    "cannot map a change", controller=self._reconciler.name, object=change.entry.key, reason=str(err)
                )
                return
            for key in keys:
                self._queue.add(key)

        everything = resource == EVERYTHING
        for each in sorted(self._cache.resources()) if everything else [resource]:
            for entry in self._cache.list(each):
                on_change(Change(type="ADDED", entry=entry, old=None, revision=entry.revision))
        return self._cache.subscribe(None if everything else [resource], on_change)

    async def _work(self, key: str) -> float | None:
        name = self._reconciler.name
        revision = self._written.pop(key, 0)
        if revision:
            await self._cache.wait_revision(revision)
        started = self._clock.monotonic()
        try:
            plan = self._reconciler.plan(self._view, key, self._clock.now())
            await self._apply(key, plan)
        except Retryable as err:
            self._metrics.reconcile_errors.labels(name, type(err).__name__).inc()
            raise
        except (Terminal, ValueError, KeyError, TypeError) as err:
            # A bug, or an object that validation should have refused: it stays with this one key, loudly.
            self._metrics.reconcile_errors.labels(name, type(err).__name__).inc()
            log.exception("plan failed", controller=name, object=key)
            raise Refused(f"{type(err).__name__}: {err}") from err
        finally:
            self._metrics.reconcile_seconds.labels(name).observe(self._clock.monotonic() - started)
        if plan.sentence and plan.writes:
            log.info(plan.sentence, controller=name, object=key)
        return None if plan.again_s is None else max(0.01, plan.again_s)

    async def _apply(self, key: str, plan: Plan) -> None:
        name = self._reconciler.name
        for batch in _batches(plan.writes):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._attempt(key, write)) for write in batch]
            errors = [error for task in tasks if (error := task.result()) is not None]
            if not errors:
                continue
            refused = next((e for e in errors if isinstance(e, ApiError) and not _means_stale(e)), None)
            if refused is None:
                # Wait for what made us stale (it dirties the key too), a little longer if it is slow in coming.
                await self._clock.sleep(STALE_DELAY_S)
                raise Retryable(f"view was behind: {errors[0]}")
            self._view.note_failure(name, key, Failure(refused.reason, str(refused)))
            await self._clock.sleep(random.uniform(0, STALE_DELAY_S))
            raise Refused(str(refused))
        self._view.note_failure(name, key, None)

    async def _attempt(self, key: str, write: Write) -> ApiError | Retryable | None:
        """One write. Its revision is what the next plan of ``key`` waits for."""
        if isinstance(write, EmitEvent):
            self._recorder.emit(write, self._reconciler.name)
            return None
        try:
            await perform(self._client, write)
        except (ApiError, Retryable) as err:
            return None if isinstance(write, Delete) and is_not_found(err) else err
        finally:
            # Also after a failure: the view must catch up with what made the write fail.
            self._written[key] = max(self._written.get(key, 0), self._acknowledged())
        self._metrics.writes.labels(self._reconciler.name, type(write).__name__).inc()
        if write.event is not None:
            self._recorder.emit(write.event, self._reconciler.name)
        return None


def _means_stale(error: Exception) -> bool:
    return is_conflict(error) or is_not_found(error) or is_already_exists(error)


def _batches(writes: tuple[Write, ...]) -> Iterator[list[Write]]:
    """Neighbours of the same type together, at most ``PARALLEL_MAX``; the order between batches is kept."""
    for _, group in groupby(writes, key=type):
        same = list(group)
        for start in range(0, len(same), PARALLEL_MAX):
            yield same[start : start + PARALLEL_MAX]


async def perform(client: Client, write: Create | Update | UpdateStatus | Patch | Delete) -> None:
    """Send one write through the API's own pipeline. Raises ``ApiError``."""
    match write:
        case Create():
            await client.create(write.resource, write.object)
        case Update():
            await client.update(write.resource, write.object)
        case UpdateStatus():
            await client.update_status(write.resource, write.object)
        case Patch():
            await client.patch(
                write.resource, write.namespace, write.name, write.patch, write.content_type, write.subresource
            )
        case Delete():
            await client.delete(
                write.resource,
                write.namespace,
                write.name,
                uid=write.uid,
                resource_version=write.resource_version,
                grace_s=write.grace_s,
                propagation=write.propagation,
            )
        case never:
            assert_never(never)

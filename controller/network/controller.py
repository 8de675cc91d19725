"""The network controller: cache changes and reports mark dirty; one pass at a time plans, publishes, judges.

A pass: presence -> plan -> manifests -> barrier -> plan again if the barrier set flags -> grant access -> publish ->
take access away. Passes run only while the broker is connected; each new connection starts with a resync.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry

from common.clock import Clock
from common.errors import Terminal
from common.logs import logger
from common.messages import ROOT, Manifest, Presence, Scope, Watermark, decode
from common.mqtt import Received
from common.tasks import Wake
from controller.network.acl import RESPONSE_TOPIC, Access, AccessList
from controller.network.barrier import Barrier
from controller.network.conditions import Conditions, StatusWriter
from controller.network.desired import Changes
from controller.network.metrics import NetworkMetrics
from controller.network.planner import Planner
from controller.network.presence import Presences
from controller.network.publish import Broker, Publisher, Retained, manifest_matches, resync_changes
from controller.network.realization import Realization
from controller.network.views import (
    ADDRESS_BLOCKS,
    PODS,
    POLICIES,
    PORTS,
    SERVICES,
    WATCHED,
    PodView,
    PortView,
    view_of,
)
from controller.runtime.view import Reader
from controller.store.cache import Change
from controller.store.entry import Entry

COALESCE_S_MAX: Final = 0.01
"""Changes share a pass if they arrive within the time that the last one took, but at most this: passes take half of
the time when there is always something to do, and wait for nothing when there is not."""
BARRIER_ROUNDS_MAX: Final = 4
_REPORT: Final = f"{ROOT}/report/"

log = logger("network")


@dataclass(frozen=True, slots=True)
class NetworkPorts:
    """Everything outside: ``broker`` is a session of its own, ``client`` writes status, ``epoch`` names the etcd."""

    reader: Reader
    client: StatusWriter
    broker: Broker
    clock: Clock
    registry: CollectorRegistry
    epoch: str


class NetworkController:
    """Build it once the cache is in sync. ``realization`` answers what is in force where."""

    def __init__(self, ports: NetworkPorts) -> None:
        self._ports = ports
        self.planner = Planner()
        self.realization = Realization(ports.epoch, self.live_span)
        self._barrier = Barrier(self.planner, self.realization, self._block_revision)
        self._presences = Presences(ports.clock.monotonic())
        self._publisher = Publisher(ports.broker)
        self._access = AccessList(ports.broker)
        self._metrics = NetworkMetrics(ports.registry)
        self._metrics.behind.set_function(lambda: len(self.realization.hosts_behind()))
        for kind in ("cluster", "ns", "host"):
            self._metrics.items.labels(kind).set_function(partial(self._count_items, kind))
        self._conditions = Conditions(ports.reader, ports.client, self.planner, self.realization, ports.clock)
        self._manifests: dict[Scope, Manifest] = {}
        self._changed_at: float | None = None
        self._wake = Wake()
        self._adopted = False

    async def run(self) -> None:
        """Until cancelled."""
        unsubscribe = self._ports.reader.subscribe(WATCHED, self._on_change)
        try:
            for resource in WATCHED:
                for entry in self._ports.reader.list(resource):
                    self._put(entry)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ports.broker.run(self._on_connect, self._on_message, self._on_lost))
                group.create_task(self._conditions.run())
        finally:
            unsubscribe()

    def live_span(self, scope: Scope) -> frozenset[str]:
        """Live hosts that must hold ``scope``."""
        kind, _, name = scope.path.partition("/")
        if kind == "ns":
            hosts = self.planner.span.hosts(name)
        else:
            hosts = frozenset(self.planner.nodes) if kind == "cluster" else frozenset((name,))
        return frozenset(host for host in hosts if self.planner.alive(host))

    def forgotten(self, revision: int) -> bool:
        """Whether every live host has put all of ``revision`` in force, so that an address freed by it is free."""
        return self.realization.reached(None, revision)

    # Events: memory only

    def _on_change(self, change: Change) -> None:
        entry = change.entry
        if change.type != "DELETED":
            self._put(entry)
        else:
            if self.planner.apply(entry.resource, entry.namespace, entry.name, None):
                self._note_time()
            if entry.resource in (POLICIES, SERVICES):
                self._conditions.gone(entry.resource, entry.namespace, entry.name)
        self._wake.set()

    def _put(self, entry: Entry) -> None:
        try:
            obj = entry.decode()
            view = view_of(entry.resource, obj)
        except (Terminal, ValueError, KeyError, TypeError, AttributeError) as err:
            # One object that validation should have refused must not stop the network: what it was stays in force.
            log.error("ignoring an object", object=entry.key, reason=repr(err))
            return
        changed = self.planner.apply(entry.resource, entry.namespace, entry.name, view)
        if entry.resource in (POLICIES, SERVICES):
            self._conditions.seen(entry.resource, obj, entry.revision, changed)
        if not changed:
            return
        self._note_time()
        if isinstance(view, PortView) and entry.resource == PORTS and not view.quarantined:
            self._barrier.bound(view.pod_uid, entry.revision)
        elif isinstance(view, PodView) and entry.resource == PODS and view.deleting and not view.host_network:
            self._barrier.deleting(view.uid)

    def _note_time(self) -> None:
        if self._changed_at is None:
            self._changed_at = self._ports.clock.now()

    def _on_message(self, message: Received) -> None:
        if message.topic.startswith(_REPORT):
            try:
                self._on_report(message)
            except Terminal as err:
                log.warning("ignoring a report", topic=message.topic[:200], reason=str(err))
        elif message.topic == RESPONSE_TOPIC:
            self._access.on_message(message)
        else:
            self._publisher.on_message(message)

    def _on_report(self, message: Received) -> None:
        payload = message.payload
        host, _, rest = message.topic.removeprefix(_REPORT).partition("/")
        now = self._ports.clock.monotonic()
        if rest == "presence":
            online = bool(payload) and decode(payload, Presence).online
            if online and not message.retained and not self._presences.connected(host):
                self.realization.forget_host(host)
            self._presences.heard(host, online, now)
            log.info("host's agent is " + ("online" if online else "offline"), host=host)
        elif rest.endswith("/watermark"):
            scope = Scope(rest.removesuffix("/watermark"))
            watermark = decode(payload, Watermark) if payload else None
            before = self.realization.failures(host, scope)
            confirmed = self.realization.confirm(host, scope, watermark)
            if confirmed is not None and watermark is not None and self._adopted:
                latency = max(0.0, watermark.committed_at - confirmed.changed_at)
                self._metrics.realization_s.labels(host, scope.path.partition("/")[0]).observe(latency)
            self._conditions.reported(scope, before != self.realization.failures(host, scope), host)
        self._wake.set()

    def _on_lost(self) -> None:
        self._metrics.connected.set(0)

    # Passes

    async def _on_connect(self) -> None:
        """Adopt what the broker has, make it equal to the plan, then follow changes. Ends with the connection."""
        await self._access.load()
        retained = await self._publisher.adopt()
        if not self._adopted:
            for uid, (cleared, drained) in retained.ports.items():
                self.planner.set_port_state(uid, cleared=cleared, drained=drained)
        self._metrics.connected.set(1)
        self._metrics.resyncs.inc()
        pass_s = await self._pass(retained)
        self._adopted = True
        while True:
            now = self._ports.clock.monotonic()
            deadline = self._presences.next_deadline(now)
            await self._wake.wait(None if deadline is None else deadline - now + COALESCE_S_MAX)
            await self._ports.clock.sleep(min(pass_s, COALESCE_S_MAX))
            pass_s = await self._pass(None)

    async def _pass(self, retained: Retained | None) -> float:
        """Plan, publish, judge. Returns how long planning took, in seconds."""
        started = self._ports.clock.monotonic()
        for host in self.planner.nodes:
            self.planner.set_online(host, self._presences.online(host, started))
        changes = self._plan(retained)
        planned_s = self._observe(started)
        # Who may read what is looked at only when it may have changed, and with every connection.
        moved = self.planner.take_moved_hosts()
        want: Access | None = None
        if moved or retained is not None:
            want = {host: self.planner.span.namespaces(host) for host in self.planner.nodes}
            await self._access.grant(want)
        if changes:
            manifests = {scope: self._manifests[scope] for scope in changes if scope in self._manifests}
            sent = await self._publisher.send(changes, manifests)
            self._metrics.published.inc(sent)
        if want is not None:
            await self._access.settle(want)
        return planned_s

    def _plan(self, retained: Retained | None) -> Changes:
        """Everything that has to be published, with ``_manifests`` current."""
        revision, changed_at = self._ports.reader.revision, self._changed_at
        self._changed_at = None
        merged: dict[Scope, dict[str, bytes | None]] = {}
        for _ in range(BARRIER_ROUNDS_MAX):
            changes = self.planner.plan()
            self._note(changes, revision, changed_at or self._ports.clock.now(), retained)
            for scope, changed in changes.items():
                merged.setdefault(scope, {}).update(changed)
            self._barrier.evaluate()
            if not self.planner.dirty:
                break
        self._conditions.planned(self.planner.take_moved_spans())
        for scope in merged:
            self._conditions.reported(scope, False)
        if retained is None:
            return merged
        return resync_changes(retained, self.planner.desired.scopes, self._manifests)

    def _note(self, changes: Changes, revision: int, changed_at: float, retained: Retained | None) -> None:
        """Give every changed scope its manifest; one that the broker retains already stands as it is."""
        fresh: dict[Scope, Manifest] = {}
        for scope in changes:
            items = self.planner.desired.scopes.get(scope)
            if items is None:
                self._manifests.pop(scope, None)
                continue
            known = retained.manifests.get(scope) if retained is not None and not self._adopted else None
            if known is None or not manifest_matches(known, items, self._ports.epoch, revision):
                known = Manifest(
                    epoch=self._ports.epoch,
                    revision=revision,
                    count=len(items.items),
                    digest=items.digest,
                    changed_at=changed_at,
                )
            fresh[scope] = self._manifests[scope] = known
        self.realization.note_pass(revision, fresh, [scope for scope in changes if scope not in self._manifests])

    def _block_revision(self, host: str, segment: str) -> int:
        entries = [self._ports.reader.get(ADDRESS_BLOCKS, "", name) for name in self.planner.block_names(host, segment)]
        return max((entry.revision for entry in entries if entry is not None), default=0)

    def _observe(self, started: float) -> float:
        planned_s = self._ports.clock.monotonic() - started
        self._metrics.pass_s.observe(planned_s)
        starting, stopping = self._barrier.waiting()
        self._metrics.starting.set(starting)
        self._metrics.stopping.set(stopping)
        return planned_s

    def _count_items(self, kind: str) -> int:
        scopes = self.planner.desired.scopes.items()
        return sum(len(items.items) for scope, items in scopes if scope.path.partition("/")[0] == kind)

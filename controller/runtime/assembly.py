"""All controllers and the scheduler, put together and run.

cache --changes--> queues --keys--> plan(view) --writes--> client (the API's pipeline) --> etcd --> cache
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from common.clock import Clock
from controller.kinds.kind import Object
from controller.reconcilers.cronjob import CronJobReconciler
from controller.reconcilers.custom_definitions import CustomDefinitionReconciler
from controller.reconcilers.daemonset import DaemonSetReconciler
from controller.reconcilers.deployment import DeploymentReconciler
from controller.reconcilers.disruption import DisruptionReconciler
from controller.reconcilers.endpoints_custom import CustomEndpointsReconciler
from controller.reconcilers.endpoints_mirror import EndpointsReconciler
from controller.reconcilers.endpointslice import EndpointSliceReconciler
from controller.reconcilers.ephemeral_volume import EphemeralVolumeReconciler
from controller.reconcilers.garbage import GarbageReconciler
from controller.reconcilers.job import JobReconciler
from controller.reconcilers.namespace import NamespaceReconciler
from controller.reconcilers.node_lifecycle import NodeLifecycleReconciler
from controller.reconcilers.pod_garbage import PodGarbageReconciler
from controller.reconcilers.port_release import PortReleaseReconciler
from controller.reconcilers.replicaset import ReplicaSetReconciler, ReplicationControllerReconciler
from controller.reconcilers.resource_quota import ResourceQuotaReconciler
from controller.reconcilers.root_ca import RootCaReconciler
from controller.reconcilers.segment import SegmentReconciler
from controller.reconcilers.service_account import ServiceAccountReconciler
from controller.reconcilers.statefulset import StatefulSetReconciler
from controller.reconcilers.ttl_after_finished import TtlAfterFinishedReconciler
from controller.reconcilers.volume_binding import PersistentVolumeBinder
from controller.reconcilers.volume_protection import ClaimProtectionReconciler, VolumeProtectionReconciler
from controller.runtime.census import Census
from controller.runtime.client import Client
from controller.runtime.events import Recorder
from controller.runtime.metrics import ControllerMetrics
from controller.runtime.reconciler import Reconciler
from controller.runtime.runner import LiveReader, Runner
from controller.runtime.view import View
from controller.scheduler.binding import Binder
from controller.scheduler.loop import NAME as SCHEDULER
from controller.scheduler.loop import Scheduler
from controller.scheduler.placed import Placed

NODE_GRACE_S = 40.0
"""Four missed renewals of a host's lease, which is due every ten seconds."""
FINISHED_PODS_MAX = 12_500


@dataclass(frozen=True, slots=True)
class ControllerPorts:
    """Everything outside of the controllers.

    ``client`` makes a client that acts as the named controller. ``acknowledged`` is the newest revision written by
    this process. ``forgotten`` says whether every live host has realized an etcd revision.
    """

    cache: LiveReader
    client: Callable[[str], Client]
    acknowledged: Callable[[], int]
    binder: Binder
    clock: Clock
    ca_pem: str
    pod_cidr: str
    segment_prefix: int
    block_prefix: int
    forgotten: Callable[[int], bool]
    registry: CollectorRegistry
    node_grace_s: float = NODE_GRACE_S
    finished_pods_max: int = FINISHED_PODS_MAX


def reconcilers(ports: ControllerPorts) -> list[Reconciler]:
    """Every reconciler. Build them once the cache is in sync: node leases are judged from now on."""
    started = ports.clock.now()

    def forgotten(port: Object) -> bool:
        return ports.forgotten(int(port["status"]["releaseRevision"]))

    return [
        DeploymentReconciler(),
        ReplicaSetReconciler(),
        ReplicationControllerReconciler(),
        DaemonSetReconciler(),
        StatefulSetReconciler(),
        JobReconciler(),
        TtlAfterFinishedReconciler(),
        CronJobReconciler(),
        DisruptionReconciler(),
        EndpointSliceReconciler(),
        EndpointsReconciler(),
        CustomEndpointsReconciler(),
        CustomDefinitionReconciler(),
        ResourceQuotaReconciler(ports.cache.resources),
        NamespaceReconciler(ports.cache.resources),
        GarbageReconciler(),
        ServiceAccountReconciler(),
        RootCaReconciler(ports.ca_pem),
        NodeLifecycleReconciler(ports.node_grace_s, lambda: max(started, ports.cache.observing_since)),
        PodGarbageReconciler(ports.finished_pods_max),
        PersistentVolumeBinder(),
        ClaimProtectionReconciler(),
        VolumeProtectionReconciler(),
        EphemeralVolumeReconciler(),
        SegmentReconciler(ports.pod_cidr, ports.segment_prefix, ports.block_prefix),
        PortReleaseReconciler(forgotten),
    ]


async def run(ports: ControllerPorts) -> None:
    """Run all controllers and the scheduler until cancelled."""
    await ports.cache.wait_synced()
    metrics = ControllerMetrics(ports.registry)
    view = View(ports.cache)
    disconnect = view.connect(ports.cache.resources())
    ports.registry.register(Census(view))
    try:
        async with asyncio.TaskGroup() as group:
            recorder = Recorder(ports.client("event-recorder"), view, ports.clock, metrics)
            group.create_task(recorder.run())
            for each in reconcilers(ports):
                user = f"system:serviceaccount:kube-system:{each.name}"
                runner = Runner(
                    each, ports.cache, view, ports.client(user), recorder, ports.clock, ports.acknowledged, metrics
                )
                group.create_task(runner.run())
            client = ports.client(f"system:{SCHEDULER}")
            scheduler = Scheduler(ports.cache, view, client, ports.binder, recorder, ports.clock, metrics)
            group.create_task(scheduler.run())
            placed = Placed(ports.cache, view, client, ports.binder, recorder, ports.clock)
            group.create_task(placed.run())
    finally:
        disconnect()

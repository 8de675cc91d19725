"""spherelet: builds every part from the config and runs them in one task tree. No decisions here."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client import REGISTRY

from common.clock import SystemClock
from common.entry import daemon
from common.kube import KubeClient
from common.logs import logger
from common.tls import client_context
from spherelet import compose
from spherelet.config import Config
from spherelet.images.collector import Collector
from spherelet.loop import Loop
from spherelet.model import PAUSE, ContainerState, PodView
from spherelet.node import Node
from spherelet.probes.worker import OnResult, Probes
from spherelet.runtime.client import Runtime
from spherelet.server.app import Server
from spherelet.server.rotation import Rotation
from spherelet.stats import Stats
from spherelet.volumes.claims import Claims
from spherelet.volumes.environment import Environment
from spherelet.volumes.manager import Volumes
from spherelet.volumes.reclaim import Reclaimer
from spherelet.volumes.sources import Sources

log = logger("spherelet")


class HostedPods:
    """The server's view of the loop; see ``spherelet.server.ports.Pods``."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def pod(self, namespace: str, name: str) -> PodView | None:
        found = [r for r in self._loop.records.values() if (r.view.namespace, r.view.name) == (namespace, name)]
        if not found:
            return None
        return max(found, key=lambda record: (record.wanted, record.seen_at)).view

    def pods(self) -> Iterator[PodView]:
        return (record.view for record in self._loop.records.values() if record.view.namespace)

    def containers(self, pod_uid: str) -> Mapping[str, tuple[ContainerState, ...]]:
        attempts = self._loop.ports.runtime.attempts(pod_uid)
        attempts.pop(PAUSE, None)
        return attempts

    def netns(self, pod_uid: str) -> Path | None:
        record = self._loop.records[pod_uid]
        return None if record.view.host_network else record.namespaces_dir / "net"

    def runtime_command(self, handler: str) -> Sequence[str]:
        return self._loop.ports.runtime.command(handler)

    def usage(self) -> Iterator[tuple[PodView, Mapping[str, tuple[ContainerState, ...]]]]:
        """What ``Stats`` reads."""
        return ((pod, self.containers(pod.uid)) for pod in list(self.pods()))


async def run(config: Config) -> None:
    """Run this host's spherelet until cancelled. Containers outlive it."""
    clock = SystemClock()
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    tls = client_context(config.api.tls) if config.api.url.startswith("https:") else None
    async with contextlib.AsyncExitStack() as stack:
        kube = KubeClient(config.api.url, tls)
        stack.push_async_callback(kube.close)
        watches = KubeClient(config.api.url, tls, connections_max=0)
        stack.push_async_callback(watches.close)
        node = Node(config, kube, clock, lambda: loop.ports.images.list(), lambda: loop.ports.images.mount_points())
        sources = Sources(watches, clock)
        claims = Claims(kube, config.host, config.persistent_dir)
        volumes = Volumes(sources, claims, clock, config.address, node.allocatable())
        reclaimer = Reclaimer(watches, clock, config.host, config.persistent_dir, config.state_dir / "pods")
        workers: list[Probes] = []

        def make_probes(runtime: Runtime, on_result: OnResult) -> Probes:
            workers.append(Probes(clock, runtime.command, on_result, unhealthy))
            return workers[0]

        def unhealthy(pod: PodView, state: ContainerState, text: str) -> None:
            loop.ports.events.tell(pod, "Unhealthy", text, container=state.name, warning=True)

        environment = Environment(sources, node.allocatable())
        loop = await stack.enter_async_context(compose.pods(config, clock, kube, volumes, environment, make_probes))
        sources.listeners.append(loop.retry)
        pods = HostedPods(loop)
        stats = Stats(config.host, config.cgroup_parent, config.state_dir, clock, pods.usage)
        server = Server(config.server, pods, stats, REGISTRY, clock, node.problems, loop.count)
        rotation = Rotation(clock, loop.ports.runtime.running)
        log.info("started", host=config.host)
        async with asyncio.TaskGroup() as group:
            parts = (sources, volumes, reclaimer, workers[0], node, server, rotation, loop)
            for part in parts:
                group.create_task(part.run(), name=type(part).__name__)
            if not config.containerd.offline:
                collector = Collector(loop.ports.images, clock, loop.needed_images)
                group.create_task(collector.run(), name="Collector")


main = daemon("spherelet", Config, run)

if __name__ == "__main__":
    main()

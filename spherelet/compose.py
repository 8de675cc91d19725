"""Puts the parts together: what runs is decided here and nowhere else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from common.clock import Clock
from common.errors import Retryable, Terminal
from common.kube import KubeClient, KubeError
from spherelet import observed
from spherelet.assembly import Assembly, Host
from spherelet.config import Config
from spherelet.credentials import Credentials
from spherelet.desired import Desired
from spherelet.events import Events
from spherelet.hooks import Hooks
from spherelet.images.store import Images
from spherelet.loop import Loop
from spherelet.network import Network
from spherelet.observed import Record
from spherelet.ports import Ports
from spherelet.runtime.client import Runtime
from spherelet.runtime.sandbox import HostSandboxes
from spherelet.seams import Environment, Probes, Volumes

OnResult = Callable[[str, str, str, bool, str], None]


@contextlib.asynccontextmanager
async def pods(
    config: Config,
    clock: Clock,
    kube: KubeClient,
    volumes: Volumes,
    environment: Environment,
    probes: Callable[[Runtime, OnResult], Probes],
) -> AsyncIterator[Loop]:
    """The loop over this host's pods, with everything on disk adopted. ``probes`` builds the probe workers."""
    pods_dir = config.state_dir / "pods"
    pods_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.state_dir.chmod(0o700)
    plans, reports = Loop.queues(clock)
    runtime = Runtime(config.runtime, config.state_dir, clock, plans.add)
    sandboxes = HostSandboxes(config.cgroup_parent)
    records = observed.read_back(pods_dir, runtime, sandboxes)
    images = Images(config.containerd)
    events = Events(kube, config.host, clock)

    def on_result(uid: str, container_id: str, kind: str, ok: bool, message: str) -> None:
        record = records.get(uid)
        if record is None:
            return
        record.probes[container_id, kind] = ok
        plans.add(uid)

    try:
        async with asyncio.TaskGroup() as group:

            def launch(record: Record, key: str, work: Awaitable[None]) -> None:
                loop.launch(record, key, work)

            ports = Ports(
                config=config,
                clock=clock,
                runtime=runtime,
                sandboxes=sandboxes,
                images=images,
                network=Network(config.nsx_socket),
                volumes=volumes,
                probes=probes(runtime, on_result),
                events=events,
                assembly=Assembly(config, Host.read(), volumes, environment, clock),
                hooks=Hooks(runtime),
                handler=_handlers(kube, runtime),
                credentials=Credentials(kube, events.tell).of,
                launch=launch,
            )
            desired = Desired(records, pods_dir, config.host, clock, plans.add)
            loop = Loop(records, desired, kube, clock, config.address, plans, reports, ports, group)
            writer = group.create_task(events.run())
            yield loop
            writer.cancel()
            for record in records.values():
                for task in record.busy.values():
                    task.cancel()
    finally:
        await images.close()


def _handlers(kube: KubeClient, runtime: Runtime) -> Callable[[str], Awaitable[str]]:
    known: dict[str, str] = {}

    async def handler(name: str) -> str:
        """Runtime handler of RuntimeClass ``name``; while the API is away the one that was known.

        Raises ``Terminal`` for an unknown class, and for a handler that this host does not have.
        """
        if not name:
            return ""
        try:
            found = await kube.get(f"/apis/node.k8s.io/v1/runtimeclasses/{name}")
        except Retryable as err:
            if isinstance(err, KubeError) and err.code == 404:
                raise Terminal(f'RuntimeClass "{name}" not found; create it or remove runtimeClassName') from err
            if name not in known:
                raise Retryable(str(err)) from err
        else:
            known[name] = str(found["handler"])
        runtime.binary(known[name])
        return known[name]

    return handler

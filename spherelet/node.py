"""This host in the API: registers the Node, renews its Lease, writes its status when something changed."""

import asyncio
import os
import platform
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
import orjson
from cri_api.v1 import api_pb2, api_pb2_grpc

from common.clock import Clock, rfc3339_micro
from common.errors import Retryable, SphereError
from common.kube import KubeClient, KubeError
from common.logs import logger
from spherelet import node_status
from spherelet.config import Config
from spherelet.node_status import Health, Identity, Machine

Object = dict[str, Any]
LEASE_RENEW_S: Final = 10.0
LEASE_DURATION_S: Final = 40
LEASE_PATH: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
CHECK_S: Final = 1.5
"""How often it is seen whether the daemons are there at all; costs next to nothing."""
FULL_CHECK_S: Final = 5.0
"""How often they are asked whether they are well."""
CHECK_TIMEOUT_S: Final = 3.0
STATUS_PERIOD_S: Final = 300.0
IMAGES_PERIOD_S: Final = 30.0
RETRY_S: Final = 0.5

log = logger("node")


class Node:
    """``run`` keeps the API's picture of this host true."""

    def __init__(
        self,
        config: Config,
        kube: KubeClient,
        clock: Clock,
        images: Callable[[], Awaitable[list[Object]]],
        image_disks: Callable[[], Awaitable[Sequence[Path]]],
    ) -> None:
        """``images`` lists ``status.images`` entries; ``image_disks`` says on which file systems images are."""
        self._config = config
        self._kube = kube
        self._clock = clock
        self._list_images = images
        self._find_image_disks = image_disks
        self._disks: Sequence[Path] = (config.state_dir,)
        self._machine = read_machine(config.state_dir)
        self._identity = _identity(config)
        self._health: Health | None = None
        self._runtime_version = "unknown"
        self._images: list[Object] = []
        self._images_at = float("-inf")
        self._written: Object | None = None
        self._written_at = float("-inf")
        self._uid = ""

    def allocatable(self) -> Mapping[str, str]:
        """What pods may use here; for resourceFieldRef."""
        return node_status.allocatable_of(self._identity, self._machine)

    def problems(self) -> tuple[str, ...]:
        """Why this host is not ready; empty when it is."""
        if self._health is None:
            return ("not checked yet",)
        return node_status.problems(self._health)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_lease())
            group.create_task(self._keep_status())

    async def _keep_status(self) -> None:
        options = [("grpc.max_reconnect_backoff_ms", 1000), ("grpc.initial_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(f"unix://{self._config.containerd.socket}", options=options) as channel:
            stub = api_pb2_grpc.RuntimeServiceStub(channel)
            checked_at = float("-inf")
            while True:
                well = self._health is not None and not self.problems()
                there = channel.get_state() is grpc.ChannelConnectivity.READY and listens(self._config.nsx_socket)
                wait_s = CHECK_S
                if not (well and there) or self._clock.monotonic() - checked_at > FULL_CHECK_S:
                    await self._check(stub)
                    checked_at = self._clock.monotonic()
                    try:
                        await self._write()
                    except SphereError as err:
                        log.info("node status not written", host=self._config.host, reason=str(err))
                        checked_at, wait_s = float("-inf"), RETRY_S
                await self._clock.sleep(wait_s)

    async def _check(self, stub: Any) -> None:
        before = self.problems()
        runtime, network = await asyncio.gather(self._check_runtime(stub), check_network(self._config.nsx_socket))
        now = self._clock.monotonic()
        if not runtime and now - self._images_at > IMAGES_PERIOD_S:
            self._images_at = now
            try:
                self._images = await self._list_images()
                self._disks = (self._config.state_dir, *await self._find_image_disks())
            except (SphereError, grpc.aio.AioRpcError) as err:
                log.info("images not listed", reason=str(err))
        self._health = read_health(self._disks, runtime, network)
        if before != self.problems():
            log.info("node health changed", host=self._config.host, reason="; ".join(self.problems()) or "ready")

    async def _check_runtime(self, stub: Any) -> str:
        try:
            answer = await stub.Version(api_pb2.VersionRequest(), timeout=CHECK_TIMEOUT_S)
        except grpc.aio.AioRpcError as err:
            return f"containerd does not answer at {self._config.containerd.socket}: {err.code().name.lower()}"
        self._runtime_version = str(answer.runtime_version).removeprefix("v").partition("~")[0]
        return ""

    async def _write(self) -> None:
        """Write the status if it differs from what was written, or that is long ago. Raises ``SphereError``."""
        assert self._health is not None
        now, monotonic = self._clock.now(), self._clock.monotonic()
        if self._written is None:
            self._written = await self._register()
        before = self._written.get("conditions") or []
        status = node_status.status(
            self._identity, self._machine, self._health, self._runtime_version, self._images, before, now
        )
        same = before and node_status.without_heartbeat(status) == node_status.without_heartbeat(self._written)
        if same and monotonic - self._written_at < STATUS_PERIOD_S:
            return
        try:
            await self._kube.patch(f"/api/v1/nodes/{self._config.host}/status", {"status": status})
        except KubeError as err:
            if err.code == 404:
                self._written = None  # somebody deleted the node: register again
            raise
        self._written, self._written_at = status, monotonic

    async def _register(self) -> Object:
        """Create the Node or set its labels; its present status."""
        wanted = node_status.node(self._identity, self._machine)
        path = f"/api/v1/nodes/{self._config.host}"
        try:
            found = await self._kube.get(path)
        except KubeError as err:
            if err.code != 404:
                raise
            found = await self._kube.create("/api/v1/nodes", wanted)
            log.info("node registered", host=self._config.host)
        have = found["metadata"].get("labels") or {}
        labels = wanted["metadata"]["labels"]
        if any(have.get(name) != value for name, value in labels.items()):
            found = await self._kube.patch(path, {"metadata": {"labels": labels}})
        self._uid = str(found["metadata"]["uid"])
        return found.get("status") or {}

    async def _renew_lease(self) -> None:
        while True:
            wait_s = LEASE_RENEW_S
            try:
                await self._renew_once()
            except SphereError as err:
                log.info("lease not renewed", host=self._config.host, reason=str(err))
                wait_s = RETRY_S
            await self._clock.sleep(wait_s)

    async def _renew_once(self) -> None:
        host = self._config.host
        spec: Object = {
            "holderIdentity": host,
            "leaseDurationSeconds": LEASE_DURATION_S,
            "renewTime": rfc3339_micro(self._clock.now()),
        }
        try:
            await self._kube.patch(f"{LEASE_PATH}/{host}", {"spec": spec})
        except KubeError as err:
            if err.code != 404:
                raise
            meta: Object = {"name": host, "namespace": "kube-node-lease"}
            if not self._uid:
                raise Retryable(f"node {host} is not registered yet: its lease goes with it") from err
            meta["ownerReferences"] = [{"apiVersion": "v1", "kind": "Node", "name": host, "uid": self._uid}]
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
            await self._kube.create(LEASE_PATH, body)


def _identity(config: Config) -> Identity:
    return Identity(
        host=config.host,
        address=config.address,
        port=int(config.server.listen.rpartition(":")[2]),
        handlers=tuple(config.runtime.handlers),
        labels=config.labels,
        cpu=config.capacity.cpu,
        memory=config.capacity.memory,
        ephemeral_storage=config.capacity.ephemeral_storage,
        pods=config.capacity.pods,
    )


def listens(path: Path) -> bool:
    """Whether a process accepts connections at the UNIX socket ``path``; does not wait."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return True  # its backlog is full: busy, not gone
        except OSError:
            return False
    return True


async def check_network(path: Path) -> str:
    """Empty when the network agent answers ``status`` with ok, else why not."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(b'{"op":"status"}\n')
                answer = orjson.loads(await reader.readline())
            finally:
                writer.close()
    except TimeoutError:
        return f"it did not answer at {path} within {CHECK_TIMEOUT_S:.0f} s"
    except OSError as err:
        return f"cannot connect to {path}: {os.strerror(err.errno or 0).lower()}"
    except ValueError:
        return f"it broke off at {path}"
    return "" if answer.get("ok") else str(answer.get("message") or "it reports a failure")


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _meminfo(name: str) -> int:
    """Bytes of a row of /proc/meminfo; 0 without it."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def read_machine(state_dir: Path) -> Machine:
    """Facts of this machine."""
    release = dict(line.split("=", 1) for line in _text("/etc/os-release").splitlines() if "=" in line)
    disk = os.statvfs(state_dir)
    machine_id = _text("/etc/machine-id")
    return Machine(
        machine_id=machine_id,
        system_uuid=_text("/sys/class/dmi/id/product_uuid") or machine_id,
        boot_id=_text("/proc/sys/kernel/random/boot_id"),
        kernel=platform.release(),
        os_image=release.get("PRETTY_NAME", "Linux").strip('"'),
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
        cpus=os.cpu_count() or 1,
        memory_bytes=_meminfo("MemTotal"),
        disk_bytes=disk.f_blocks * disk.f_frsize,
        swap_bytes=_meminfo("SwapTotal"),
    )


def read_health(disks: Sequence[Path], runtime: str, network: str) -> Health:
    """Resources left on this machine, with the given verdicts on its daemons. Of ``disks``, the fullest counts."""
    found = {path: os.statvfs(path) for path in disks if path.exists()}
    fullest = min(found, key=lambda path: found[path].f_bavail / max(1, found[path].f_blocks))
    disk = found[fullest]
    nodes = min(found.values(), key=lambda each: each.f_favail / each.f_files if each.f_files else 1.0)
    return Health(
        runtime=runtime,
        network=network,
        memory_available=_meminfo("MemAvailable"),
        disk_available=disk.f_bavail * disk.f_frsize,
        disk_total=disk.f_blocks * disk.f_frsize,
        disk_path=str(fullest),
        inodes_available=nodes.f_favail,
        inodes_total=nodes.f_files,
        pids=int(_text("/proc/loadavg").split()[3].partition("/")[2]),
        pids_max=int(_text("/proc/sys/kernel/pid_max") or "32768"),
    )

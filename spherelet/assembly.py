"""Puts together what a container is made of: identity, user, environment, OCI spec."""

import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.clock import Clock
from spherelet import files
from spherelet.config import Config
from spherelet.model import ContainerState, ContainerView, Image, PodView, Role
from spherelet.observed import Record
from spherelet.runtime import cgroups, pause, security, spec, users
from spherelet.seams import Environment, Volumes

MAPPING_BYTES_MAX = 1 << 20


@dataclass(frozen=True, slots=True)
class Host:
    """What about this machine goes into containers; read once."""

    cgroup_version: int
    capabilities: frozenset[str]
    oom_score_floor: int
    memory_bytes: int

    @staticmethod
    def read() -> "Host":
        return Host(
            cgroup_version=cgroups.version(),
            capabilities=security.available(Path("/proc/self/status").read_text()),
            oom_score_floor=int(Path("/proc/self/oom_score_adj").read_text()),
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        )


@dataclass(frozen=True, slots=True)
class Assembly:
    """Makes ``ContainerState`` and spec of a new attempt."""

    config: Config
    host: Host
    volumes: Volumes
    environment: Environment
    clock: Clock

    async def container(
        self, record: Record, container: ContainerView, attempt: int, backoff_s: float, handler: str, joined_pid: int
    ) -> tuple[ContainerState, Image, dict[str, Any]]:
        """A new attempt and its spec; it shares the PID namespace of ``joined_pid`` unless that is 0.

        Raises ``Terminal`` with the CreateContainerConfigError text.
        """
        pod = record.view
        assert record.sandbox is not None
        assert record.volumes is not None
        if container.role is Role.PAUSE:
            image = pause.image(self.config.state_dir / "pause")
        else:
            image = record.images[container.name]
        env = await self.environment(pod.body, container.spec, record.sandbox.address, self.config.address)
        qos = cgroups.qos(pod.spec)
        state = ContainerState(
            pod_uid=record.uid,
            name=container.name,
            attempt=attempt,
            id=secrets.token_hex(32),
            directory=record.containers_dir / container.name / str(attempt),
            image=container.image,
            image_id=image.reference,
            handler=handler,
            created_at=self.clock.now(),
            stop_signal=_stop_signal(container, image),
            backoff_s=backoff_s,
            spec_hash=container.spec_hash,
            resources=container.resources,
            cgroup=f"{cgroups.pod_path(self.config.cgroup_parent, qos, record.uid)}/{container.name}",
            netns=None if pod.host_network else record.namespaces_dir / "net",
            epoch=record.sandbox.epoch,
        )
        user = users.resolve(
            str(image.config.get("User") or ""),
            pod.spec.get("securityContext") or {},
            container.spec.get("securityContext") or {},
            _image_file(image, "etc/passwd"),
            _image_file(image, "etc/group"),
        )
        request = ((container.spec.get("resources") or {}).get("requests") or {}).get("memory", 0)
        privileged = bool((container.spec.get("securityContext") or {}).get("privileged"))
        inputs = spec.Inputs(
            container_id=state.id,
            image=image,
            user=user,
            env=env,
            hostname=files.kernel_hostname(pod, self.config.host, self.config.dns.domain),
            pod_dir=record.directory,
            directory=state.directory,
            namespaces=_namespaces(record, joined_pid),
            volumes=record.volumes,
            subpaths=await self.volumes.subpaths(container.spec, record.directory, record.volumes, dict(env)),
            cgroup=state.cgroup,
            cgroup_version=self.host.cgroup_version,
            capabilities=self.host.capabilities,
            oom_score_adj=spec.oom_score(
                qos, cgroups.amount(request), float(self.host.memory_bytes), self.host.oom_score_floor
            ),
            devices=host_devices() if privileged else (),
        )
        return state, image, spec.build(pod, container, inputs)

    def limits(self, container: ContainerView) -> dict[str, Any]:
        """OCI limits of CPU and memory by the container's spec as it is now."""
        wanted = spec.resources(container.spec.get("resources") or {}, self.host.cgroup_version, privileged=False)
        return {key: value for key, value in wanted.items() if key in ("cpu", "memory")}


def wanted_namespaces(pod: PodView) -> tuple[str, ...]:
    """Kinds of namespaces that a pod has of its own."""
    kinds = ["net", "uts"] if not pod.host_network else []
    if not pod.spec.get("hostIPC"):
        kinds.append("ipc")
    return tuple(kinds)


def host_devices() -> list[dict[str, Any]]:
    """Devices of the host, for a privileged container."""
    found = []
    for path in sorted(Path("/dev").iterdir()):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
        if kind and path.name not in ("console", "ptmx", "tty"):
            major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            mode = stat.S_IMODE(status.st_mode)
            found.append({"path": str(path), "type": kind, "major": major, "minor": minor, "fileMode": mode})
    return found


def _namespaces(record: Record, joined_pid: int) -> Mapping[str, Path]:
    pinned = {kind: record.namespaces_dir / kind for kind in wanted_namespaces(record.view)}
    return {**pinned, "pid": Path(f"/proc/{joined_pid}/ns/pid")} if joined_pid else pinned


def _stop_signal(container: ContainerView, image: Image) -> str:
    own = (container.spec.get("lifecycle") or {}).get("stopSignal")
    name = str(own or image.config.get("StopSignal") or "SIGTERM").upper()
    return name if name.isdigit() or name.startswith("SIG") else f"SIG{name}"


def _image_file(image: Image, name: str) -> str:
    """Text of a file of the image: of the topmost layer that has it; empty if none has. Never follows a link out."""
    for layer in image.layers:
        path = Path(layer) / name
        try:
            status = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(status.st_mode):
            return ""  # a whiteout, or a link that could lead anywhere
        with path.open("rb") as file:
            return file.read(MAPPING_BYTES_MAX).decode("utf-8", "replace")
    return ""

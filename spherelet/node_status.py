"""The Node object of this host. Pure: facts in, object out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.clock import rfc3339

Object = dict[str, Any]
KUBELET_VERSION: Final = "v1.36.0-sphere"
IMAGES_MAX: Final = 50
MEMORY_AVAILABLE_BYTES_MIN: Final = 100 << 20
DISK_AVAILABLE_BYTES_MIN: Final = 1 << 30
DISK_AVAILABLE_SHARE_MIN: Final = 0.10
INODES_AVAILABLE_SHARE_MIN: Final = 0.05
PIDS_AVAILABLE_SHARE_MIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change while the machine runs."""

    machine_id: str
    system_uuid: str
    boot_id: str
    kernel: str
    os_image: str
    architecture: str
    """Go's name (``amd64``)."""
    cpus: int
    memory_bytes: int
    disk_bytes: int
    swap_bytes: int


@dataclass(frozen=True, slots=True)
class Health:
    """What was checked last. Texts are empty when all is well."""

    runtime: str
    network: str
    memory_available: int
    disk_available: int
    disk_total: int
    inodes_available: int
    inodes_total: int
    pids: int
    pids_max: int
    disk_path: str = ""
    """A directory on the disk that ``disk_available`` is of."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the config says."""

    host: str
    address: str
    port: int
    handlers: Sequence[str]
    labels: Mapping[str, str]
    cpu: str | None
    memory: str | None
    ephemeral_storage: str | None
    pods: int


def labels(identity: Identity, machine: Machine) -> dict[str, str]:
    """Labels that kubelet sets, and the config's own."""
    return {
        "kubernetes.io/hostname": identity.host,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": machine.architecture,
        **identity.labels,
    }


def node(identity: Identity, machine: Machine) -> Object:
    """The object to register."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": identity.host, "labels": labels(identity, machine)},
        "spec": {},
    }


def capacity(identity: Identity, machine: Machine) -> dict[str, str]:
    """Capacity and, as nothing is reserved, allocatable."""
    return {
        "cpu": identity.cpu or str(machine.cpus),
        "memory": identity.memory or f"{machine.memory_bytes // 1024}Ki",
        "ephemeral-storage": identity.ephemeral_storage or f"{machine.disk_bytes // 1024}Ki",
        "pods": str(identity.pods),
        "hugepages-1Gi": "0",
        "hugepages-2Mi": "0",
    }


def problems(health: Health) -> tuple[str, ...]:
    """Why this host is not ready; empty when it is."""
    found = []
    if health.runtime:
        found.append(f"container runtime is down: {health.runtime}")
    if health.network:
        found.append(f"network agent is down: {health.network}")
    return tuple(found)


def conditions(health: Health, before: Sequence[Object], now: float) -> list[Object]:
    """All node conditions; ``lastTransitionTime`` is kept from ``before`` where the status is the same."""
    memory = health.memory_available < MEMORY_AVAILABLE_BYTES_MIN
    disk_min = min(DISK_AVAILABLE_BYTES_MIN, int(health.disk_total * DISK_AVAILABLE_SHARE_MIN))
    disk = (
        health.disk_available < disk_min or health.inodes_available < health.inodes_total * INODES_AVAILABLE_SHARE_MIN
    )
    pids = health.pids_max - health.pids < health.pids_max * PIDS_AVAILABLE_SHARE_MIN
    why = problems(health)
    rows = (
        ("NetworkUnavailable", bool(health.network), "NetworkAgentDown", "NetworkAgentReady",
         health.network, "the network agent answers"),
        ("MemoryPressure", memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory",
         "kubelet has insufficient memory available", "kubelet has sufficient memory available"),
        ("DiskPressure", disk, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure",
         f"kubelet has disk pressure: free some space on the disk of {health.disk_path}",
         "kubelet has no disk pressure"),
        ("PIDPressure", pids, "KubeletHasInsufficientPID", "KubeletHasSufficientPID",
         "kubelet has insufficient PID available", "kubelet has sufficient PID available"),
    )  # fmt: skip
    result = [
        _condition(kind, "True" if bad else "False", bad_reason if bad else reason, bad_text if bad else text)
        for kind, bad, bad_reason, reason, bad_text, text in rows
    ]
    if why:
        result.append(_condition("Ready", "False", "KubeletNotReady", "; ".join(why)))
    else:
        result.append(_condition("Ready", "True", "KubeletReady", "spherelet is posting ready status"))
    old = {each["type"]: each for each in before}
    for each in result:
        same = old.get(each["type"], {}).get("status") == each["status"]
        each["lastHeartbeatTime"] = rfc3339(now)
        each["lastTransitionTime"] = old[each["type"]]["lastTransitionTime"] if same else rfc3339(now)
    return result


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def status(
    identity: Identity,
    machine: Machine,
    health: Health,
    runtime_version: str,
    images: Sequence[Object],
    before: Sequence[Object],
    now: float,
) -> Object:
    """The whole ``NodeStatus``."""
    amounts = capacity(identity, machine)
    return {
        "addresses": [
            {"type": "InternalIP", "address": identity.address},
            {"type": "Hostname", "address": identity.host},
        ],
        "capacity": amounts,
        "allocatable": dict(amounts),
        "conditions": conditions(health, before, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": identity.port}},
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.system_uuid,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.os_image,
            "containerRuntimeVersion": f"containerd://{runtime_version}",
            "kubeletVersion": KUBELET_VERSION,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": machine.architecture,
            "swap": {"capacity": machine.swap_bytes},
        },
        "images": sorted(images, key=lambda each: (-int(each.get("sizeBytes", 0)), each.get("names", [""])))[
            :IMAGES_MAX
        ],
        "runtimeHandlers": [
            {"name": name, "features": {"recursiveReadOnlyMounts": False, "userNamespaces": False}}
            for name in ("", *sorted(identity.handlers))
        ],
        "features": {"supplementalGroupsPolicy": True},
    }


def without_heartbeat(body: Object) -> Object:
    """``body`` for comparison: what changes with every look is left out."""
    kept = [{k: v for k, v in each.items() if k != "lastHeartbeatTime"} for each in body["conditions"]]
    return {**body, "conditions": kept}


def allocatable_of(identity: Identity, machine: Machine) -> dict[str, str]:
    """Allocatable as downward API and scheduler see it."""
    return {name: str(amount) for name, amount in capacity(identity, machine).items()}

"""Cgroups of pods, version 1 (one tree per controller) and version 2 (one tree).

Containers' own cgroups are made and limited by the OCI runtime below ``path(...)``; here are the pods' parents.
"""

import contextlib
import errno
import math
import os
from collections.abc import Mapping
from pathlib import Path

from common.quantity import NANO, Quantity

ROOT = Path("/sys/fs/cgroup")
CPU_PERIOD_US = 100_000
QUOTA_US_MIN = 1_000
SHARES_MIN, SHARES_MAX = 2, 262_144
V1_POD_CONTROLLERS = ("cpu", "memory", "pids")


def amount(value: object) -> float:
    """A quantity as a number (cores, bytes)."""
    return Quantity.parse(str(value)).nanos / NANO


def version(root: Path = ROOT) -> int:
    """2 where the unified hierarchy is mounted at the root, else 1 (also for hybrid)."""
    return 2 if (root / "cgroup.controllers").exists() else 1


def shares(cores: float) -> int:
    """cgroup v1 ``cpu.shares`` of a CPU request."""
    return max(SHARES_MIN, min(SHARES_MAX, _milli(cores) * 1024 // 1000))


def quota_us(cores: float) -> int:
    """CFS quota of a CPU limit, per ``CPU_PERIOD_US``."""
    return max(QUOTA_US_MIN, _milli(cores) * CPU_PERIOD_US // 1000)


def _milli(cores: float) -> int:
    """Thousandths, rounded up as ``Quantity.MilliValue``: what a float lacks of a whole one is not an amount."""
    return math.ceil(round(cores * 1000, 6))


def weight(cpu_shares: int) -> int:
    """cgroup v2 ``cpu.weight`` (1..10000) of v1 shares, by the conversion that OCI runtimes use."""
    return 1 + ((cpu_shares - 2) * 9999) // 262_142


def qos(spec: Mapping[str, object]) -> str:
    """QoS class of a pod spec: ``Guaranteed``, ``Burstable`` or ``BestEffort``."""
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]  # type: ignore[misc]
    some, guaranteed = False, True
    for each in containers:
        resources = each.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit, request = limits.get(name), requests.get(name, limits.get(name))
            if any(value is not None and amount(value) > 0 for value in (limit, request)):
                some = True
            if limit is None or amount(limit) == 0 or amount(request) != amount(limit):
                guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def pod_path(parent: str, qos_class: str, uid: str) -> str:
    """Cgroup path of a pod: ``<parent>/pods/<qos>/pod<uid>``."""
    return f"{parent.rstrip('/')}/pods/{qos_class.lower()}/pod{uid}"


def pod_limits(spec: Mapping[str, object]) -> dict[str, float]:
    """``requests_cpu`` in cores, and ``limits_cpu`` / ``limits_memory`` where every container has one."""
    total: dict[str, float] = {"requests_cpu": 0.0}
    containers = list(spec.get("containers") or ())  # type: ignore[call-overload]
    for each in containers:
        resources = each.get("resources") or {}
        requests = resources.get("requests") or {}
        limits = resources.get("limits") or {}
        total["requests_cpu"] += amount(requests.get("cpu", limits.get("cpu", 0)))
    for name in ("cpu", "memory"):
        values = [((each.get("resources") or {}).get("limits") or {}).get(name) for each in containers]
        if values and all(amount(value or 0) > 0 for value in values):
            total[f"limits_{name}"] = sum(amount(value) for value in values)
    return total


def make_pod(path: str, spec: Mapping[str, object], root: Path = ROOT) -> None:
    """Create a pod's cgroup and set its limits. Idempotent. A controller that is not there is skipped."""
    limits = pod_limits(spec)
    if version(root) == 2:
        _make_v2(root, path)
        values = {"cpu.weight": str(weight(shares(limits["requests_cpu"])))}
        if "limits_cpu" in limits:
            values["cpu.max"] = f"{quota_us(limits['limits_cpu'])} {CPU_PERIOD_US}"
        if "limits_memory" in limits:
            values["memory.max"] = str(int(limits["limits_memory"]))
        _write(root / path.lstrip("/"), values)
        return
    for controller in V1_POD_CONTROLLERS:
        if (root / controller).is_dir():
            (root / controller / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    values = {"cpu.shares": str(shares(limits["requests_cpu"]))}
    if "limits_cpu" in limits:
        values |= {"cpu.cfs_period_us": str(CPU_PERIOD_US), "cpu.cfs_quota_us": str(quota_us(limits["limits_cpu"]))}
    _write(root / "cpu" / path.lstrip("/"), values)
    if "limits_memory" in limits:
        _write(root / "memory" / path.lstrip("/"), {"memory.limit_in_bytes": str(int(limits["limits_memory"]))})


def remove_pod(path: str, root: Path = ROOT) -> bool:
    """Remove a pod's cgroup from every hierarchy, with any empty child. False if a process is still inside."""
    clean = True
    tops = [root] if version(root) == 2 else [each for each in root.iterdir() if each.is_dir()]
    for top in tops:
        for directory, _, _ in os.walk(top / path.lstrip("/"), topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as err:
                if err.errno != errno.EBUSY:
                    raise
                clean = False
    return clean


def processes(path: str, root: Path = ROOT) -> list[int]:
    """Processes in the cgroup ``path`` (any one hierarchy tells)."""
    top = root if version(root) == 2 else root / "memory"
    with contextlib.suppress(OSError):
        return [int(line) for line in (top / path.lstrip("/") / "cgroup.procs").read_text().split()]
    return []


def _make_v2(root: Path, path: str) -> None:
    here = root
    for part in Path(path.lstrip("/")).parts:
        wanted = [name for name in ("cpu", "memory", "pids", "io", "cpuset") if name in _controllers(here)]
        with contextlib.suppress(OSError):
            (here / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in wanted))
        here = here / part
        here.mkdir(exist_ok=True)


def _controllers(directory: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return (directory / "cgroup.controllers").read_text().split()
    return []


def _write(directory: Path, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        with contextlib.suppress(FileNotFoundError):
            (directory / name).write_text(value)

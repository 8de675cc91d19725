"""What pods and this host use: cgroups v1 and v2, network counters, file systems; rendered as kubelet's APIs do.

Read when asked for, never by a timer: an idle host costs nothing.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.clock import Clock, rfc3339
from spherelet.model import ContainerState, PodView
from spherelet.runtime import cgroups

SAMPLE_AGE_S: Final = 2.0
"""Rates are taken over at least this long."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one cgroup: nanoseconds of CPU since it was made, bytes of memory now."""

    cpu_ns: int
    memory: int
    working_set: int
    rss: int
    faults: int = 0
    major_faults: int = 0


def read_usage(path: str, root: Path = cgroups.ROOT) -> Usage | None:
    """Usage of cgroup ``path`` (below the root of each hierarchy); None when it is gone."""
    relative = path.lstrip("/")
    try:
        if cgroups.version(root) == 2:
            base = root / relative
            cpu_ns = _table(base / "cpu.stat").get("usage_usec", 0) * 1000
            usage_file, names = base / "memory.current", ("inactive_file", "anon", "pgfault", "pgmajfault")
        else:
            base = root / "memory" / relative
            cpu_ns = int((root / "cpuacct" / relative / "cpuacct.usage").read_text())
            usage_file = base / "memory.usage_in_bytes"
            names = ("total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault")
        stat = _table(base / "memory.stat")
        used = int(usage_file.read_text()) if usage_file.exists() else sum(stat.get(n, 0) for n in ("anon", "file"))
    except (OSError, ValueError):
        return None
    inactive, rss, faults, major = (stat.get(name, 0) for name in names)
    return Usage(cpu_ns, used, max(0, used - inactive), rss, faults, major)


def _table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(" ") for line in path.read_text().splitlines())}


class Stats:
    """Answers of ``/stats/summary``, ``/metrics/resource`` and ``/metrics/cadvisor``."""

    def __init__(
        self,
        host: str,
        cgroup_parent: str,
        state_dir: Path,
        clock: Clock,
        pods: Callable[[], Iterator[tuple[PodView, Mapping[str, tuple[ContainerState, ...]]]]],
        root: Path = cgroups.ROOT,
    ) -> None:
        self._host = host
        self._parent = cgroup_parent
        self._state_dir = state_dir
        self._clock = clock
        self._pods = pods
        self._root = root
        self._samples: dict[str, tuple[float, int]] = {}
        self._started = clock.monotonic()

    def _cpu(self, key: str, usage: Usage, since: float) -> dict[str, Any]:
        """CPU part of the Summary API; the rate is over the time since the last sample, at first since ``since``."""
        now = self._clock.monotonic()
        before = self._samples.get(key)
        if before is None or now - before[0] >= SAMPLE_AGE_S:
            self._samples[key] = (now, usage.cpu_ns)
        stamp, earlier = before or (now - max(0.001, self._clock.now() - since), 0)
        rate = max(0, int((usage.cpu_ns - earlier) / max(0.001, now - stamp)))
        return {
            "time": rfc3339(self._clock.now()),
            "usageNanoCores": rate,
            "usageCoreNanoSeconds": usage.cpu_ns,
        }

    def _memory(self, usage: Usage) -> dict[str, Any]:
        return {
            "time": rfc3339(self._clock.now()),
            "usageBytes": usage.memory,
            "workingSetBytes": usage.working_set,
            "rssBytes": usage.rss,
            "pageFaults": usage.faults,
            "majorPageFaults": usage.major_faults,
        }

    def _running(self) -> Iterator[tuple[PodView, list[ContainerState]]]:
        for pod, containers in self._pods():
            running = [attempts[-1] for attempts in containers.values() if attempts and attempts[-1].running]
            if running:
                yield pod, running

    def summary(self) -> dict[str, Any]:
        """kubelet's ``statsapi.Summary``."""
        pods = [self._pod_summary(pod, running) for pod, running in self._running()]
        live = {key for pod in pods for key in (pod["podRef"]["uid"], *(c["id"] for c in pod["containers"]))}
        for key in self._samples.keys() - live - {"node"}:
            del self._samples[key]
        for pod in pods:
            for container in pod["containers"]:
                del container["id"]
        return {"node": self._node_summary(), "pods": pods}

    def _pod_summary(self, pod: PodView, running: list[ContainerState]) -> dict[str, Any]:
        containers = []
        for state in running:
            usage = read_usage(state.cgroup, self._root)
            if usage is not None:
                containers.append(
                    {
                        "id": state.id,
                        "name": state.name,
                        "startTime": rfc3339(state.started_at),
                        "cpu": self._cpu(state.id, usage, state.started_at),
                        "memory": self._memory(usage),
                    }
                )
        whole = read_usage(os.path.dirname(running[0].cgroup), self._root)
        start = min(state.started_at for state in running)
        report: dict[str, Any] = {
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "startTime": rfc3339(start),
            "containers": containers,
        }
        if whole is not None:
            report |= {"cpu": self._cpu(pod.uid, whole, start), "memory": self._memory(whole)}
        if not pod.host_network:
            interfaces = read_interfaces(running[0].pid)
            if interfaces:
                first = next((each for each in interfaces if each["name"] == "eth0"), interfaces[0])
                report["network"] = {"time": rfc3339(self._clock.now()), **first, "interfaces": interfaces}
        return report

    def _node_usage(self) -> Usage | None:
        """Of the host's cgroup when this process lives in it, else of the machine."""
        with contextlib.suppress(OSError):
            if f":{self._parent.rstrip('/')}/" in Path("/proc/self/cgroup").read_text():
                return read_usage(self._parent, self._root)
        return _machine_usage()

    def _node_summary(self) -> dict[str, Any]:
        usage = self._node_usage()
        now = rfc3339(self._clock.now())
        disk = os.statvfs(self._state_dir)
        fs = {
            "time": now,
            "availableBytes": disk.f_bavail * disk.f_frsize,
            "capacityBytes": disk.f_blocks * disk.f_frsize,
            "usedBytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            "inodesFree": disk.f_favail,
            "inodes": disk.f_files,
            "inodesUsed": disk.f_files - disk.f_ffree,
        }
        node: dict[str, Any] = {"nodeName": self._host, "fs": fs, "runtime": {"imageFs": fs}}
        if usage is not None:
            node["startTime"] = rfc3339(self._clock.now() - self._clock.monotonic() + self._started)
            node["cpu"] = self._cpu("node", usage, self._clock.now() - self._clock.monotonic())
            node["memory"] = {
                **self._memory(usage),
                "availableBytes": max(0, memory_total() - usage.working_set),
            }
        interfaces = read_interfaces("self")
        if interfaces:
            node["network"] = {"time": now, **interfaces[0], "interfaces": interfaces}
        return node

    def resource_metrics(self) -> str:
        """kubelet's ``/metrics/resource`` exposition: what metrics-server scrapes."""
        out = _Exposition()
        usage = self._node_usage()
        if usage is not None:
            out.add("node_cpu_usage_seconds_total", "counter", {}, usage.cpu_ns / 1e9)
            out.add("node_memory_working_set_bytes", "gauge", {}, usage.working_set)
        for pod, running in self._running():
            where = {"namespace": pod.namespace, "pod": pod.name}
            for state in running:
                labels = {"container": state.name, **where}
                used = read_usage(state.cgroup, self._root)
                out.add("container_start_time_seconds", "gauge", labels, state.started_at)
                if used is not None:
                    out.add("container_cpu_usage_seconds_total", "counter", labels, used.cpu_ns / 1e9)
                    out.add("container_memory_working_set_bytes", "gauge", labels, used.working_set)
            whole = read_usage(os.path.dirname(running[0].cgroup), self._root)
            if whole is not None:
                out.add("pod_cpu_usage_seconds_total", "counter", where, whole.cpu_ns / 1e9)
                out.add("pod_memory_working_set_bytes", "gauge", where, whole.working_set)
        out.add("resource_scrape_error", "gauge", {}, 0)
        return out.text()

    def cadvisor_metrics(self) -> str:
        """The part of ``/metrics/cadvisor`` that common dashboards ask for."""
        out = _Exposition()
        for pod, running in self._running():
            where = {"namespace": pod.namespace, "pod": pod.name}
            for state in running:
                labels = {"container": state.name, "id": state.cgroup, "image": state.image, "name": state.id, **where}
                used = read_usage(state.cgroup, self._root)
                if used is not None:
                    out.add("container_cpu_usage_seconds_total", "counter", labels, used.cpu_ns / 1e9)
                    out.add("container_memory_usage_bytes", "gauge", labels, used.memory)
                    out.add("container_memory_working_set_bytes", "gauge", labels, used.working_set)
                    out.add("container_memory_rss", "gauge", labels, used.rss)
                out.add("container_start_time_seconds", "gauge", labels, state.started_at)
            for each in () if pod.host_network else read_interfaces(running[0].pid):
                labels = {"interface": each["name"], **where}
                out.add("container_network_receive_bytes_total", "counter", labels, each["rxBytes"])
                out.add("container_network_transmit_bytes_total", "counter", labels, each["txBytes"])
        return out.text()


class _Exposition:
    """Prometheus text format, samples grouped by metric."""

    def __init__(self) -> None:
        self._metrics: dict[str, tuple[str, list[str]]] = {}

    def add(self, name: str, kind: str, labels: Mapping[str, str], value: float) -> None:
        inner = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        self._metrics.setdefault(name, (kind, []))[1].append(
            f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}"
        )

    def text(self) -> str:
        return "".join(
            f"# TYPE {name} {kind}\n" + "\n".join(samples) + "\n" for name, (kind, samples) in self._metrics.items()
        )


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def read_interfaces(pid: int | str) -> list[dict[str, Any]]:
    """Counters of the interfaces that process ``pid`` sees, but for loopback; empty when it is gone."""
    with contextlib.suppress(OSError):
        found = []
        for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]:
            name, _, rest = line.partition(":")
            numbers = [int(each) for each in rest.split()]
            if name.strip() != "lo":
                found.append(
                    {
                        "name": name.strip(),
                        "rxBytes": numbers[0],
                        "rxErrors": numbers[2],
                        "txBytes": numbers[8],
                        "txErrors": numbers[10],
                    }
                )
        return found
    return []


def memory_total() -> int:
    """Bytes of memory of this machine."""
    return _meminfo().get("MemTotal", 0)


def _meminfo() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in lines if len(parts) == 3}


def _machine_usage() -> Usage:
    info = _meminfo()
    ticks = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    busy = sum(ticks) - ticks[3] - ticks[4]
    used = info["MemTotal"] - info["MemFree"]
    working = info["MemTotal"] - info.get("MemAvailable", info["MemFree"])
    return Usage(busy * 10**9 // os.sysconf("SC_CLK_TCK"), used, working, info.get("AnonPages", 0))

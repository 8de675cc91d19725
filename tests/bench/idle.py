"""What an idle cluster costs: CPU of all its processes, memory of the two agents of a host."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from sphere import machines, topology
from sphere.layout import Layout
from sphere.wanted import present_hosts
from tests.bench.figures import Figure

WINDOW_S = 20.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
AGENTS = ("spherelet", "nsx_agent")


def measure() -> Iterator[Figure]:
    """Watch /proc for a while; nothing else may run in the cluster."""
    layout = Layout.default()
    hosts = present_hosts(layout)
    members = {one.name: _processes(layout, one.name) for one in (topology.control(), *hosts)}
    everything = [pid for pids in members.values() for pid in pids]
    before = {pid: _cpu_s(pid) for pid in everything}
    time.sleep(WINDOW_S)
    busy_s = sum(max(0.0, _cpu_s(pid) - before[pid]) for pid in everything)
    yield Figure("idle cluster, CPU of all processes", 100 * busy_s / WINDOW_S, "% of a core", limit=5)
    agents = {host.name: [pid for pid in members[host.name] if _module(pid) in AGENTS] for host in hosts}
    resident = {name: sum(_kib(pid, "Rss") for pid in pids) / 1024 for name, pids in agents.items()}
    shared = {name: sum(_kib(pid, "Pss") for pid in pids) / 1024 for name, pids in agents.items()}
    largest = max(resident, key=lambda name: resident[name])
    yield Figure("spherelet + nsx-agent, RSS, largest host", resident[largest], "MiB", limit=110)
    yield Figure("spherelet + nsx-agent, PSS, same host", shared[largest], "MiB")


def _processes(layout: Layout, machine: str) -> list[int]:
    """Every process of a machine: those that share its supervisor's PID namespace."""
    supervisor = machines.pid_of(layout, machine)
    if supervisor is None:
        raise RuntimeError(f"{machine} is off; bring it back with `sphere up`")
    namespace = os.readlink(f"/proc/{supervisor}/ns/pid")
    return sorted(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is_in(pid, namespace))


def _is_in(pid: int, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except OSError:
        return False


def _module(pid: int) -> str:
    """``spherelet`` for ``python -m spherelet --config ...``."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    return words[words.index("-m") + 1] if "-m" in words else ""


def _cpu_s(pid: int) -> float:
    """User and system time of a process and of the children it has waited for; 0 once it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / CLOCK_TICKS


def _kib(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} of process {pid}")

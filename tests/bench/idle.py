"""What an idle cluster costs: CPU of all its processes, memory of the two agents of a host."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench.cluster import output, sphere
from tests.bench.figures import Figure

WINDOW_S = 30.0
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
AGENTS = ("spherelet", "nsx-agent")


def measure() -> Iterator[Figure]:
    """Watch /proc for a while; nothing else may run in the cluster."""
    rows = json.loads(output(sphere("status", "-o", "json")))
    components = rows["components"] if isinstance(rows, dict) else rows
    roots = [_host_pid(row) for row in components]
    pids = sorted({pid for root in roots for pid in (root, _parent(root))})
    before = {pid: _cpu_s(pid) for pid in pids}
    time.sleep(WINDOW_S)
    busy = {pid: _cpu_s(pid) - before[pid] for pid in pids}
    percent = 100 * sum(busy.values()) / WINDOW_S
    yield Figure("idle cluster, CPU of all processes", percent, "% of a core", None, 5, "value")
    hosts = sorted({row["machine"] for row in components if row["component"] in AGENTS})
    for host in hosts:
        agents = [_host_pid(r) for r in components if r["machine"] == host and r["component"] in AGENTS]
        mebibytes = sum(_pss_kib(pid) for pid in agents) / 1024
        yield Figure(f"{host}: spherelet + nsx-agent, PSS", mebibytes, "MiB", None, 110, "value")


def _host_pid(row: dict[str, object]) -> int:
    """The PID as this machine sees it, whichever way the status prints it."""
    return int(str(row.get("host_pid") or row["pid"]))


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / CLOCK_TICKS


def _pss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"no Pss of {pid}")

"""spherelet gets SIGKILL, as a process of its own: nothing of it runs to an end, and what it started goes on."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]
LOOP = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import world
from common.clock import SystemClock
from common.kube import KubeClient
from spherelet import compose

async def main(directory, url, containerd):
    config = world.config(Path(directory), url, Path(containerd))
    probes = lambda runtime, on_result: world.NoProbes()
    volumes = world.EmptyVolumes()
    made = compose.pods(config, SystemClock(), KubeClient(url, None), volumes, world.plain_environment, probes)
    async with made as loop:
        await loop.run()

asyncio.run(main(*sys.argv[2:]))
"""


def world() -> Any:
    return sys.modules["world"]


def ready(host: Any, name: str) -> bool:
    conditions = host.api.status(name).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def spawn(host: Any) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", LOOP, str(Path(__file__).parent)]
    argv += [str(host.directory), host.api.url, str(host.config.containerd.socket)]
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def process(host: Any) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The host's loop as a process that listens to the API; killed at the latest when the context is left."""
    await host.stop()
    before = host.api.watches
    running = spawn(host)
    try:
        await world().eventually(lambda: host.api.watches > before, what="it follows the API")
        yield running
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait(10)


async def gone(host: Any, name: str) -> None:
    w = world()
    host.api.delete(name, 1)
    await w.eventually(
        lambda: name not in host.api.pods and not host.loop.records, timeout_s=30, what=f"{name} is gone"
    )
    assert w.census(host.directory, host.config.cgroup_parent) == []


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
@pytest.mark.parametrize("milliseconds", [3, 8, 12, 16, 20, 25, 30, 40, 60])
async def test_killed_while_a_pod_starts(host: Any, milliseconds: int, shared: bool) -> None:
    w = world()
    async with process(host):
        host.api.create(w.pod("cut", "sleep", "3600", shareProcessNamespace=shared))
        await asyncio.sleep(milliseconds / 1000)
    await host.start()
    await w.eventually(lambda: ready(host, "cut"), timeout_s=30)
    assert host.api.status("cut")["containerStatuses"][0]["restartCount"] == 0
    await gone(host, "cut")


@pytest.mark.parametrize("milliseconds", [2, 6, 12, 20, 40])
async def test_killed_while_a_pod_ends(host: Any, milliseconds: int) -> None:
    w = world()
    async with process(host):
        host.api.create(w.pod("cut", "sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"))
        await w.eventually(lambda: ready(host, "cut"))
        host.api.delete("cut", 5)
        await asyncio.sleep(milliseconds / 1000)
    await host.start()
    await w.eventually(lambda: "cut" not in host.api.pods and not host.loop.records, timeout_s=30)
    assert w.census(host.directory, host.config.cgroup_parent) == []

"""Probes of a real container, in its own network."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from spherelet.model import ContainerState, PodView
from spherelet.probes.attempt import Target, attempt
from spherelet.probes.worker import Probes
from tests.support.oci_container import container, crun

pytestmark = [pytest.mark.integration, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SERVER = """
while true; do
  if [ -e /tmp/sick ]; then code="503 Sick"; else code="200 OK"; fi
  printf "HTTP/1.1 $code\\r\\nConnection: close\\r\\n\\r\\n" | nc -l -p 8080 >/dev/null
done
"""


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerState]:
    name = f"tprobe{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    try:
        with container(tmp_path_factory.mktemp("web"), ["sh", "-c", SERVER], netns=Path("/run/netns") / name) as state:
            yield state
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def target(state: ContainerState) -> Target:
    return Target(state, "127.0.0.1", {"http": 8080}, crun(state.directory.parent / "crun"))


async def test_attempts_of_each_kind(web: ContainerState) -> None:
    async def once(**probe: Any) -> tuple[bool, str]:
        verdict = await attempt(probe, target(web))
        return verdict.ok, verdict.message

    assert await once(exec={"command": ["true"]}) == (True, "")
    ok, said = await once(exec={"command": ["sh", "-c", "echo unwell; exit 1"]})
    assert (ok, said) == (False, "unwell\n")
    ok, said = await once(exec={"command": ["sleep", "5"]}, timeoutSeconds=1)
    assert (ok, said) == (False, 'command timed out: "sleep 5" timed out after 1s')
    ok, said = await once(tcpSocket={"port": 9})
    assert (ok, said) == (False, "dial tcp 127.0.0.1:9: connect: connection refused")
    ok, said = await once(httpGet={"port": "none"})
    assert "no port named 'none'" in said
    ok, said = await once(grpc={"port": 9})
    assert 'failed to connect service "127.0.0.1:9"' in said


async def test_readiness_follows_the_server(web: ContainerState) -> None:
    probe = {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1, "failureThreshold": 2}
    spec = {"name": "main", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe}
    pod = PodView({"metadata": {"name": "web", "uid": "uid-1"}, "spec": {"containers": [spec]}})
    results: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    failures: list[str] = []
    probes = Probes(
        SystemClock(),
        lambda handler: target(web).command,
        lambda uid, container_id, kind, ok, message: results.put_nowait((kind, ok)),
        lambda pod, state, text: failures.append(text),
    )
    sick = web.directory / "rootfs/tmp/sick"
    async with asyncio.TaskGroup() as group, asyncio.timeout(20):
        task = group.create_task(probes.run())
        began = time.monotonic()
        probes.start(pod, web, "127.0.0.1")
        probes.start(pod, web, "127.0.0.1")
        assert await results.get() == ("readiness", True)
        assert time.monotonic() - began < 2
        sick.touch()
        assert await results.get() == ("readiness", False)
        assert failures[-1] == "Readiness probe failed: HTTP probe failed with statuscode: 503"
        sick.unlink()
        assert await results.get() == ("readiness", True)
        probes.stop(web.id)
        probes.stop(web.id)
        assert results.empty()
        sick.touch()
        began = time.monotonic()
        probes.start(pod, web, "127.0.0.1")
        assert results.get_nowait() == ("readiness", True), "what was ready stays ready over a restart"
        assert await results.get() == ("readiness", False)
        assert time.monotonic() - began > 0.9, "until it has failed as often as it may"
        probes.stop(web.id)
        sick.unlink()
        task.cancel()

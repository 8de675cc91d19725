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


async def answered(reply: bytes, path: str = "/") -> tuple[bool, str]:
    """A probe of a server here that answers every request with ``reply``; the last path asked for counts in it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        writer.write(replies.get(asked, reply))
        await writer.drain()
        writer.close()

    replies = {"/broken": b"HTTP/1.1 500 No\r\n\r\n", "/fine": b"HTTP/1.1 200 OK\r\n\r\n"}
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    state = ContainerState("u", "main", 0, "id", Path("/none"), "i", "r", "", 0.0)
    async with server:
        probe = {"httpGet": {"port": port, "path": path}, "timeoutSeconds": 5}
        verdict = await attempt(probe, Target(state, "127.0.0.1", {}, ("false",)))
    return verdict.ok, verdict.message


async def test_redirects_are_followed_on_the_same_host_only() -> None:
    def redirect(location: str) -> bytes:
        return f"HTTP/1.1 302 Found\r\nX: y\r\nLocation: {location}\r\n\r\n".encode()

    assert await answered(redirect("/fine")) == (True, "")
    assert await answered(redirect("/broken")) == (False, "HTTP probe failed with statuscode: 500")
    assert await answered(redirect("http://192.0.2.1/broken")) == (True, "")
    ok, said = await answered(redirect("/again"))
    assert not ok
    assert "stopped after 10 redirects" in said
    assert await answered(b"HTTP/1.1 304 Not Modified\r\n\r\n") == (True, "")
    assert "malformed HTTP response" in (await answered(b"hello\r\n"))[1]

"""spherelet's server over mutual TLS with one pod on it, and clients of its streams."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry

from common import upgrade
from common.clock import SystemClock
from common.settings import TlsFiles
from common.tls import client_context
from spherelet.config import Server as ServerConfig
from spherelet.model import ContainerState, PodView
from spherelet.server import spdy
from spherelet.server.app import Server
from spherelet.server.remotecommand import V4, V5
from spherelet.stats import Stats
from tests.support.mosquitto import Authority
from tests.support.oci_container import crun

DEADLINE_S = 20


class OnePod:
    """A host with one pod and one container."""

    def __init__(self, state: ContainerState, spec: dict[str, object], netns: Path | None = None) -> None:
        self.view = PodView(
            {
                "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1"},
                "spec": {"containers": [{"name": "main", **spec}]},
            }
        )
        self.state = state
        self._netns = netns

    def pod(self, namespace: str, name: str) -> PodView | None:
        return self.view if (namespace, name) == ("shop", "web") else None

    def pods(self) -> list[PodView]:
        return [self.view]

    def containers(self, pod_uid: str) -> Mapping[str, tuple[ContainerState, ...]]:
        return {"main": (self.state,)}

    def netns(self, pod_uid: str) -> Path | None:
        return self._netns

    def runtime_command(self, handler: str) -> Sequence[str]:
        return crun(self.state.directory.parent / "crun")


class SpdyClient:
    """What kubectl does with a SPDY session."""

    def __init__(self, connection: upgrade.Connection) -> None:
        self.connection = connection
        self.data: dict[int, bytes] = {}
        """What came, by stream."""
        self.ended: set[int] = set()
        self.reset: set[int] = set()
        self._spdy = spdy.Connection()
        self._next = 1

    async def open(self, kind: str, **headers: str) -> int:
        """Open a stream; its number."""
        stream, self._next = self._next, self._next + 2
        self.data[stream] = b""
        await self.connection.write(self._spdy.open(stream, {"streamType": kind, **headers}))
        return stream

    async def write(self, stream: int, payload: bytes, *, end: bool = False) -> None:
        """Send in frames as kubectl does."""
        for start in range(0, len(payload), 32 << 10):
            await self.connection.write(spdy.data(stream, payload[start : start + (32 << 10)]))
        if end:
            await self.connection.write(spdy.data(stream, b"", end=True))

    async def until_ended(self, *streams: int) -> None:
        """Read until the server has ended or reset ``streams``."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.ended | self.reset >= set(streams):
                piece = await self.connection.read()
                assert piece, f"the server left; so far {self.data}"
                for event in self._spdy.receive(piece):
                    if isinstance(event, spdy.Data):
                        self.data[event.stream] += event.payload
                        if event.ended:
                            self.ended.add(event.stream)
                    elif isinstance(event, spdy.Reset):
                        self.reset.add(event.stream)

    def status(self, stream: int) -> dict[str, Any]:
        """The final status, which came on the error stream."""
        found: dict[str, Any] = json.loads(self.data[stream])
        return found


class Client:
    """Talks to a running server."""

    def __init__(self, session: aiohttp.ClientSession, port: int, context: ssl.SSLContext) -> None:
        self.session = session
        self.base = f"https://127.0.0.1:{port}"
        self._port = port
        self._context = context

    async def ask_spdy(self, path: str, protocol: str = V4) -> upgrade.Answer:
        """Ask for an upgrade to SPDY."""
        headers = [("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)]
        return await upgrade.request("127.0.0.1", self._port, self._context, path, headers)

    @contextlib.asynccontextmanager
    async def spdy(self, path: str, protocol: str = V4) -> AsyncIterator["SpdyClient"]:
        """A SPDY session; the client leaves at the end."""
        answer = await self.ask_spdy(path, protocol)
        assert answer.connection is not None, answer
        assert answer.headers["x-stream-protocol-version"] == protocol
        with contextlib.closing(answer.connection) as connection:
            yield SpdyClient(connection)

    async def command(
        self, path: str, *, stdin: bytes | None = None, protocol: str = V5
    ) -> tuple[dict[int, bytes], dict[str, object]]:
        """Run to the end: bytes by channel, and the final status."""
        output: dict[int, bytes] = {}
        async with self.session.ws_connect(self.base + path, protocols=(protocol,)) as websocket:
            if stdin is not None:
                await websocket.send_bytes(b"\0" + stdin)
                await websocket.send_bytes(b"\xff\0")
            async for message in websocket:
                output[message.data[0]] = output.get(message.data[0], b"") + message.data[1:]
        return output, json.loads(output.pop(3))


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, pods: OnePod, identity: str = "sphere-controller") -> AsyncIterator[Client]:
    """Serve ``pods`` for the duration; the client is ``identity``."""
    authority = Authority(tmp_path)
    files: TlsFiles = authority.identity("system:node:host-1")
    server = Server(
        ServerConfig(listen="127.0.0.1:0", tls=files),
        pods,
        Stats("host-1", "/sphere/host-1", tmp_path, SystemClock(), lambda: iter(())),
        CollectorRegistry(),
        SystemClock(),
        lambda: (),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        await server.listening.wait()
        context = client_context(authority.identity(identity))
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
            yield Client(session, server.port, context)
        task.cancel()

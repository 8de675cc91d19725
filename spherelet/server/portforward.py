"""``/portForward``: TCP connections into a pod's network, for kubectl (SPDY, also in WebSocket) and channel clients."""

import asyncio
import contextlib
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import WSMsgType, web

from common.errors import Retryable
from common.upgrade import Detached
from spherelet.netns import socket_in
from spherelet.server import spdy
from spherelet.server.channels import upgrade
from spherelet.server.remotecommand import V4
from spherelet.server.wire import PROTOCOL, WebSocketWire, Wire, accept_spdy, heartbeat, wants_spdy

VERSION: Final = "portforward.k8s.io"
SPDY_TUNNEL: Final = f"{PROTOCOL}+{VERSION}"
QUEUED_FRAMES_MAX: Final = 16
"""Frames of one connection that wait for the pod; then the session is not read until it takes them."""
STREAMS_MAX: Final = 2048
"""Open streams of one session; two make a connection."""
CONNECT_TIMEOUT_S: Final = 10.0
CHUNK: Final = 32 << 10


async def connect(netns: Path | None, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to localhost:``port`` inside the pod. Raises ``OSError`` or ``Retryable``."""
    made = socket_in(netns)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", port))
        return await asyncio.open_connection(sock=made)
    except BaseException:
        made.close()
        raise


async def handle(request: web.Request, pod: str, netns: Path | None) -> web.StreamResponse:
    """Serve one port-forward session until the client leaves."""
    if wants_spdy(request):
        async with accept_spdy(request, (VERSION,)) as wire:
            await Tunnel(wire, pod, netns).run()
        return Detached()
    websocket = await upgrade(request, (SPDY_TUNNEL, V4))
    if websocket.ws_protocol == SPDY_TUNNEL:
        await Tunnel(WebSocketWire(websocket), pod, netns).run()
    else:
        await _channels(websocket, request, pod, netns)
    return websocket


def failure(pod: str, port: int, err: BaseException) -> str:
    """What the user reads when a connection cannot be made."""
    cause = os.strerror(err.errno) if isinstance(err, OSError) and err.errno else str(err) or type(err).__name__
    return f"error forwarding port {port} to pod {pod}: failed to connect to localhost:{port} inside the pod: {cause}"


@dataclass(slots=True)
class Forward:
    """One forwarded connection: kubectl's pair of streams. ``incoming`` None ends our write side."""

    port: int
    error_stream: int = 0
    data_stream: int = 0
    incoming: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(QUEUED_FRAMES_MAX))
    task: asyncio.Task[None] | None = None


class Tunnel:
    """A SPDY session."""

    def __init__(self, wire: Wire, pod: str, netns: Path | None) -> None:
        self._wire = wire
        self._pod = pod
        self._netns = netns
        self._spdy = spdy.Connection()
        self._pairs: dict[tuple[str, int], Forward] = {}
        self._streams: dict[int, Forward] = {}

    async def run(self) -> None:
        """Until the client goes away."""
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(heartbeat(self._wire))
            with contextlib.suppress(ConnectionError):
                try:
                    while piece := await self._wire.receive():
                        for event in self._spdy.receive(piece):
                            await self._handle(group, event)
                except spdy.ProtocolError:
                    await self._send(spdy.go_away(0, spdy.PROTOCOL_ERROR))
            beating.cancel()
            for forward in self._streams.values():
                if forward.task is not None:
                    forward.task.cancel()
        await self._wire.close()

    async def _handle(self, group: asyncio.TaskGroup, event: spdy.Event) -> None:
        match event:
            case spdy.Opened():
                await self._opened(group, event)
            case spdy.Data(stream, payload, ended):
                forward = self._streams.get(stream)
                if forward is not None and forward.data_stream == stream:
                    if payload:
                        await forward.incoming.put(payload)
                    if ended:
                        await forward.incoming.put(None)
            case spdy.Reset(stream):
                forward = self._streams.get(stream)
                if forward is not None and forward.task is not None:
                    forward.task.cancel()
            case spdy.Pinged(reply):
                await self._send(reply)
            case spdy.GoneAway():
                pass

    async def _opened(self, group: asyncio.TaskGroup, event: spdy.Opened) -> None:
        kind, port = event.headers.get("streamtype"), event.headers.get("port", "")
        bad_port = not port.isdigit() or not 0 < int(port) < 65536
        if kind not in ("data", "error") or bad_port or len(self._streams) >= STREAMS_MAX:
            await self._send(spdy.reset(event.stream, spdy.REFUSED_STREAM))
            return
        key = (event.headers.get("requestid", ""), int(port))
        forward = self._pairs.setdefault(key, Forward(int(port)))
        self._streams[event.stream] = forward
        if kind == "error":
            forward.error_stream = event.stream
        else:
            forward.data_stream = event.stream
        await self._send(self._spdy.reply(event.stream))
        if forward.error_stream and forward.data_stream and forward.task is None:
            forward.task = group.create_task(self._forward(key, forward))

    async def _forward(self, key: tuple[str, int], forward: Forward) -> None:
        try:
            reader, writer = await connect(self._netns, forward.port)
        except (OSError, TimeoutError, Retryable) as err:
            text = failure(self._pod, forward.port, err).encode()
            with contextlib.suppress(ConnectionError):
                await self._send(spdy.data(forward.error_stream, text, end=True))
                await self._send(spdy.data(forward.data_stream, b"", end=True))
            self._forget(key, forward)
            return

        async def send(payload: bytes) -> None:
            await self._send(spdy.data(forward.data_stream, payload))

        async def ended() -> None:
            await self._send(spdy.data(forward.data_stream, b"", end=True))
            await self._send(spdy.data(forward.error_stream, b"", end=True))

        try:
            await relay(reader, writer, forward.incoming, send, ended)
        finally:
            self._forget(key, forward)

    def _forget(self, key: tuple[str, int], forward: Forward) -> None:
        self._pairs.pop(key, None)
        for stream in (forward.error_stream, forward.data_stream):
            self._streams.pop(stream, None)
        while not forward.incoming.empty():
            forward.incoming.get_nowait()

    async def _send(self, frame: bytes) -> None:
        await self._wire.send(frame)


async def relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    incoming: asyncio.Queue[bytes | None],
    send: Callable[[bytes], Awaitable[None]],
    ended: Callable[[], Awaitable[None]],
) -> None:
    """Carry bytes both ways until the pod's side has closed (half-close from the client is passed on)."""

    async def upward() -> None:
        with contextlib.suppress(OSError):
            while (payload := await incoming.get()) is not None:
                writer.write(payload)
                await writer.drain()
            writer.write_eof()
            return
        while await incoming.get() is not None:  # the pod reads no more; do not stall the session
            pass

    try:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(upward())
            with contextlib.suppress(OSError):
                while piece := await reader.read(CHUNK):
                    await send(piece)
                await ended()
            feeding.cancel()
    finally:
        writer.close()


async def _channels(websocket: web.WebSocketResponse, request: web.Request, pod: str, netns: Path | None) -> None:
    """Ports are named in the query; channel 2i carries data of the i-th, 2i+1 its errors; both begin with the port."""
    asked = [each for key in ("port", "ports") for text in request.query.getall(key, []) for each in text.split(",")]
    ports = [int(each) for each in asked if each.isdigit() and 0 < int(each) < 65536]
    queues: list[asyncio.Queue[bytes | None]] = [asyncio.Queue(QUEUED_FRAMES_MAX) for _ in ports]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_channel(websocket, pod, netns, index, port, queues[index]))
            for index, port in enumerate(ports)
        ]
        async for message in websocket:
            if message.type is WSMsgType.BINARY and message.data:
                channel, payload = message.data[0], message.data[1:]
                if channel % 2 == 0 and channel // 2 < len(queues) and payload and not tasks[channel // 2].done():
                    await queues[channel // 2].put(payload)
        for task in tasks:
            task.cancel()


async def _channel(
    websocket: web.WebSocketResponse,
    pod: str,
    netns: Path | None,
    index: int,
    port: int,
    incoming: asyncio.Queue[bytes | None],
) -> None:
    data, error = bytes((2 * index,)), bytes((2 * index + 1,))

    async def send(payload: bytes) -> None:
        await websocket.send_bytes(data + payload)

    async def ended() -> None:
        await websocket.close()

    with contextlib.suppress(ConnectionError):
        for channel in (data, error):
            await websocket.send_bytes(channel + struct.pack("<H", port))
        try:
            reader, writer = await connect(netns, port)
        except (OSError, TimeoutError, Retryable) as err:
            await websocket.send_bytes(error + failure(pod, port, err).encode())
            return
        await relay(reader, writer, incoming, send, ended)

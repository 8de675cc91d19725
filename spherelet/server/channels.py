"""The channels of an exec or attach session, and how they travel in a WebSocket; for SPDY see ``spdy_channels``."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from spherelet.server.remotecommand import (
    CLOSE,
    ERROR,
    PROTOCOLS,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    Framing,
    window_size,
)

FRAME_BYTES_MAX = 4 << 20
Feed = Callable[[bytes], Awaitable[None]]
EndStdin = Callable[[], None]
Resize = Callable[[int, int], None]


async def upgrade(request: web.Request, protocols: tuple[str, ...] = PROTOCOLS) -> web.WebSocketResponse:
    """Accept the WebSocket. Raises 400 when no subprotocol is common."""
    offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if not set(offered) & set(protocols):
        raise web.HTTPBadRequest(text=f"unable to upgrade: use a WebSocket with subprotocol {' or '.join(protocols)}\n")
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=FRAME_BYTES_MAX, heartbeat=30, compress=False)
    await socket.prepare(request)
    return socket


class Channels(ABC):
    """Traffic of one session, by the numbers of ``remotecommand``."""

    @abstractmethod
    async def send(self, channel: int, payload: bytes) -> None:
        """Output; lost without a word when the client has left. Waits for a slow client."""

    @abstractmethod
    async def pump_in(self, stdin: Feed, end_stdin: EndStdin, resize: Resize) -> None:
        """Take what the client sends until it goes away."""

    @abstractmethod
    async def finish(self, status: dict[str, Any]) -> None:
        """Send the final status and close."""

    @property
    @abstractmethod
    def response(self) -> web.StreamResponse:
        """What the handler returns."""


class WebSocketChannels(Channels):
    """One message per piece: a channel byte and the payload."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self._framing = Framing(socket.ws_protocol or "")

    @property
    def response(self) -> web.StreamResponse:
        return self._socket

    async def greet(self, *, stdout: bool, stderr: bool) -> None:
        """An empty message on the first output channel: tells clients that the session stands."""
        await self.send(STDOUT if stdout else STDERR if stderr else ERROR, b"")

    async def send(self, channel: int, payload: bytes) -> None:
        message = self._framing.message(channel, payload)
        with contextlib.suppress(ConnectionError):
            if self._framing.is_text:
                await self._socket.send_str(message.decode())
            else:
                await self._socket.send_bytes(message)

    async def pump_in(self, stdin: Feed, end_stdin: EndStdin, resize: Resize) -> None:
        async for message in self._socket:
            # Clients send what they have as text as text: the Python client's write_stdin("...").
            data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
            parsed = self._framing.parse(data) if message.type in (WSMsgType.BINARY, WSMsgType.TEXT) else None
            if parsed is None:
                continue
            channel, payload = parsed
            if channel == STDIN:
                await feed_stdin(payload, stdin, end_stdin)
            elif channel == RESIZE:
                apply_size(payload, resize)
            elif channel == CLOSE and payload[:1] == bytes((STDIN,)):
                end_stdin()

    async def finish(self, status: dict[str, Any]) -> None:
        said = self._framing.ending(status)
        if said is not None:
            await self.send(ERROR, said)
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            async with asyncio.timeout(5):
                await self._socket.close()


@contextlib.asynccontextmanager
async def websocket_channels(request: web.Request, *, stdout: bool, stderr: bool) -> AsyncIterator[Channels]:
    """Accept the WebSocket. Raises 400 when no subprotocol is common."""
    channels = WebSocketChannels(await upgrade(request))
    await channels.greet(stdout=stdout, stderr=stderr)
    yield channels


async def feed_stdin(payload: bytes, stdin: Feed, end_stdin: EndStdin) -> None:
    """Pass input on; when the command reads no more, the rest of its input has no taker."""
    try:
        if payload:
            await stdin(payload)
    except OSError:
        end_stdin()


def apply_size(payload: bytes, resize: Resize) -> None:
    """Act on a resize message; nonsense is ignored."""
    with contextlib.suppress(ValueError):
        size = orjson.loads(payload)
        found = window_size(size) if isinstance(size, dict) else None
        if found:
            resize(*found)


async def until_first(*work: Awaitable[None]) -> None:
    """Run all of ``work``; when the first is done, cancel the rest. Failures propagate."""

    async def one(each: Awaitable[None]) -> None:
        await each

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in work]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

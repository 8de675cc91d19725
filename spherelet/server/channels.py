"""One exec or attach WebSocket: frames in and out, on the channels of ``remotecommand``."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from spherelet.descriptors import Descriptor
from spherelet.server.remotecommand import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, V4, V5, window_size

FRAME_BYTES_MAX = 4 << 20


async def upgrade(request: web.Request, protocols: tuple[str, ...] = (V5, V4)) -> web.WebSocketResponse:
    """Accept the WebSocket. Raises 400 when no subprotocol is common."""
    offered = [p.strip() for p in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if not set(offered) & set(protocols):
        raise web.HTTPBadRequest(text=f"unable to upgrade: use a WebSocket with subprotocol {' or '.join(protocols)}\n")
    socket = web.WebSocketResponse(protocols=protocols, max_msg_size=FRAME_BYTES_MAX, heartbeat=30, compress=False)
    await socket.prepare(request)
    return socket


class Channels:
    """Channel traffic of one session."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket

    async def greet(self, *, stdout: bool, stderr: bool) -> None:
        """An empty message on the first output channel: tells clients that the session stands."""
        await self.send(STDOUT if stdout else STDERR if stderr else ERROR, b"")

    async def send(self, channel: int, payload: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes((channel,)) + payload)

    async def pump_out(self, channel: int, stream: Descriptor) -> None:
        """Forward what ``stream`` yields until its end."""
        while piece := await stream.read():
            await self.send(channel, piece)

    async def pump_in(
        self,
        stdin: Callable[[bytes], Awaitable[None]],
        end_stdin: Callable[[], None],
        resize: Callable[[int, int], None],
    ) -> None:
        """Take messages until the client goes away."""
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            channel, payload = message.data[0], message.data[1:]
            if channel == STDIN:
                try:
                    if payload:
                        await stdin(payload)
                except OSError:
                    end_stdin()  # the command reads no more; the rest of its input has no taker
            elif channel == RESIZE:
                with contextlib.suppress(ValueError):
                    size = orjson.loads(payload)
                    found = window_size(size) if isinstance(size, dict) else None
                    if found:
                        resize(*found)
            elif channel == CLOSE and payload[:1] == bytes((STDIN,)):
                end_stdin()

    async def finish(self, status: dict[str, Any]) -> None:
        """Send the final status and close."""
        await self.send(ERROR, orjson.dumps(status))
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            async with asyncio.timeout(5):
                await self._socket.close()


async def until_first(*work: Awaitable[None]) -> None:
    """Run all of ``work``; when the first is done, cancel the rest. Failures propagate."""

    async def one(each: Awaitable[None]) -> None:
        await each

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(each)) for each in work]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()

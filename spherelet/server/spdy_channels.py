"""The channels of one exec or attach session as streams of a SPDY session (``v4.channel.k8s.io``).

The client opens a stream for each channel, named by the header ``streamType``. Ends are the streams' own: the client
half-closes ``stdin``, the server half-closes its outputs and last of all ``error``, on which the final status goes.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from aiohttp import web

from common.upgrade import Detached
from spherelet.server import spdy
from spherelet.server.channels import Channels, EndStdin, Feed, Resize, apply_size, feed_stdin
from spherelet.server.remotecommand import ERROR, RESIZE, STDERR, STDIN, STDOUT, V4
from spherelet.server.wire import Wire, accept_spdy, heartbeat

NAMES: Final = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
OPEN_TIMEOUT_S: Final = 30.0
EARLY_EVENTS_MAX: Final = 16
"""Data that a client may send before it has opened all of its streams; none does."""
SIZE_BYTES_MAX: Final = 1024


class SpdyChannels(Channels):
    """One stream per channel."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._spdy = spdy.Connection()
        self._streams: dict[int, int] = {}
        """Stream by channel."""
        self._channels: dict[int, int] = {}
        """Channel by stream."""
        self._events: deque[spdy.Event] = deque()

    @property
    def response(self) -> web.StreamResponse:
        return Detached()

    async def open(self, wanted: frozenset[int]) -> None:
        """Wait for the client to open the streams ``wanted``; others may come later.

        Raises ``ConnectionError``, ``ProtocolError``, or ``TimeoutError``.
        """
        early: list[spdy.Event] = []
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            while not wanted <= self._streams.keys():
                event = await self._next()
                if event is None:
                    raise ConnectionResetError("the client left before it opened its streams")
                if isinstance(event, spdy.Opened | spdy.Pinged):
                    await self._answer(event)
                else:
                    early.append(event)
                if len(early) > EARLY_EVENTS_MAX:
                    raise spdy.ProtocolError("data came before the streams of the session")
        self._events.extendleft(reversed(early))

    async def send(self, channel: int, payload: bytes) -> None:
        if payload and channel in self._streams:
            with contextlib.suppress(ConnectionError):
                await self._wire.send(spdy.data(self._streams[channel], payload))

    async def pump_in(self, stdin: Feed, end_stdin: EndStdin, resize: Resize) -> None:
        async with asyncio.TaskGroup() as group:
            beating = group.create_task(heartbeat(self._wire))
            with contextlib.suppress(ConnectionError, spdy.ProtocolError):
                await self._take(stdin, end_stdin, resize)
            beating.cancel()

    async def _take(self, stdin: Feed, end_stdin: EndStdin, resize: Resize) -> None:
        sizes = b""
        while (event := await self._next()) is not None:
            match event:
                case spdy.Opened() | spdy.Pinged():
                    await self._answer(event)
                case spdy.Data(stream, payload, ended):
                    channel = self._channels.get(stream)
                    if channel == STDIN:
                        await feed_stdin(payload, stdin, end_stdin)
                        if ended:
                            end_stdin()
                    elif channel == RESIZE:
                        # A stream of JSON objects, one to a line; frames may cut it anywhere.
                        *lines, sizes = (sizes + payload).split(b"\n")
                        for line in lines:
                            apply_size(line, resize)
                        sizes = sizes[-SIZE_BYTES_MAX:]
                case spdy.Reset(stream):
                    if self._channels.get(stream) == STDIN:
                        end_stdin()
                case spdy.GoneAway():
                    pass

    async def finish(self, status: dict[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):
            for channel in (STDOUT, STDERR, STDIN, RESIZE):
                if channel in self._streams:
                    await self._wire.send(spdy.data(self._streams[channel], b"", end=True))
            await self._wire.send(spdy.data(self._streams[ERROR], orjson.dumps(status), end=True))
        await self._wire.close()

    async def _next(self) -> spdy.Event | None:
        """The next event, or None when the client has left. May be cancelled without loss."""
        while not self._events:
            piece = await self._wire.receive()
            if not piece:
                return None
            self._events.extend(self._spdy.receive(piece))
        return self._events.popleft()

    async def _answer(self, event: spdy.Opened | spdy.Pinged) -> None:
        if isinstance(event, spdy.Pinged):
            await self._wire.send(event.reply)
            return
        channel = NAMES.get(event.headers.get("streamtype", ""))
        if channel is None or channel in self._streams:
            await self._wire.send(spdy.reset(event.stream, spdy.REFUSED_STREAM))
            return
        self._streams[channel], self._channels[event.stream] = event.stream, channel
        await self._wire.send(self._spdy.reply(event.stream))


@contextlib.asynccontextmanager
async def spdy_channels(request: web.Request, *, stdin: bool, stdout: bool, stderr: bool) -> AsyncIterator[Channels]:
    """Upgrade and wait for the streams. Raises 403 when no protocol is common; then ``ConnectionError``."""
    asked = {STDIN: stdin, STDOUT: stdout, STDERR: stderr, ERROR: True}
    async with accept_spdy(request, (V4,)) as wire:
        channels = SpdyChannels(wire)
        try:
            await channels.open(frozenset(channel for channel, wanted in asked.items() if wanted))
        except (spdy.ProtocolError, TimeoutError) as err:
            raise ConnectionAbortedError(f"no session came about: {err}") from err
        yield channels

"""HTTP upgrades after which the connection carries another protocol (SPDY): bytes both ways, beneath aiohttp.

``accept`` answers a request of an aiohttp server with 101 and takes the connection over; ``request`` asks a server
for an upgrade. What goes wrong before the 101 is an ordinary HTTP answer, so handlers check everything first.

aiohttp knows no upgrade but WebSocket. Its server's transport is given another protocol instead (asyncio's public
``set_protocol``), and its own one is told when the connection is lost, so that the server forgets the connection and
cancels the handler as it does for any client that leaves. Flow control is asyncio's: nothing is read ahead of the
consumer beyond a small buffer, and ``write`` waits for a slow peer.

Spec: RFC 9110 sections 7.8 (Upgrade) and 15.2.2 (101).
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

READ_BYTES: Final = 64 << 10
"""Most that is read at once; asyncio stops reading the socket at twice this."""
ERROR_BYTES_MAX: Final = 64 << 10
Headers = Sequence[tuple[str, str]]


class BadAnswer(ConnectionError):
    """The server's answer is no HTTP."""


class Connection:
    """An upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self) -> bytes:
        """What has arrived, at least a byte; empty when the peer has left, however it left."""
        with contextlib.suppress(OSError):
            return await self._reader.read(READ_BYTES)
        return b""

    async def write(self, data: bytes) -> None:
        """Send; waits while the peer does not take what was sent before. Raises ``ConnectionError``."""
        self._writer.write(data)
        await self._writer.drain()

    async def flush(self) -> None:
        """Wait until all that was written is on its way. Raises ``ConnectionError``."""
        # Not 0: a transport with TLS holds that to be reached when nothing is buffered, and would wait for ever.
        self._writer.transport.set_write_buffer_limits(high=1)
        await self._writer.drain()

    def close(self) -> None:
        """Send what was written, then close."""
        self._writer.close()

    def abort(self) -> None:
        """Close at once, even if the peer takes nothing any more."""
        self._writer.transport.abort()


class Detached(web.StreamResponse):
    """What a handler returns for a connection that was taken over: aiohttp has nothing left to send on it."""

    def __init__(self) -> None:
        super().__init__(status=101)
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class _Takeover(asyncio.StreamReaderProtocol):
    """Streams on a transport that belonged to another protocol, which still learns of its end."""

    def __init__(self, reader: asyncio.StreamReader, former: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._former = former

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._former.connection_lost(exc)


@contextlib.asynccontextmanager
async def accept(http: web.BaseRequest, headers: Mapping[str, str]) -> AsyncIterator[Connection]:
    """Answer 101 with ``headers`` (``Upgrade`` among them) and own the connection inside of the context.

    The handler then returns ``Detached()``. It is cancelled when the client leaves. Raises ``ConnectionError`` when the
    client has left already.
    """
    transport = http.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client left before the upgrade")
    reader = asyncio.StreamReader(limit=READ_BYTES)
    protocol = _Takeover(reader, transport.get_protocol())
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    connection = Connection(reader, asyncio.StreamWriter(transport, protocol, reader, asyncio.get_running_loop()))
    try:
        await connection.write(_head("HTTP/1.1 101 Switching Protocols", [("Connection", "Upgrade"), *headers.items()]))
        yield connection
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to an upgrade. ``connection`` unless it refused; else ``body`` (its beginning) says why."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes = b""
    connection: Connection | None = None


async def request(host: str, port: int, context: ssl.SSLContext, target: str, headers: Headers) -> Answer:
    """POST ``target`` (path and query, encoded) and ask for an upgrade; the caller closes ``connection``.

    ``headers`` name the protocols wanted (``Upgrade`` among them). Raises ``OSError``, also ``BadAnswer``; wrap it in a
    timeout.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=READ_BYTES)
    first = [("Host", f"{host}:{port}"), ("Connection", "Upgrade"), ("Content-Length", "0")]
    return await ask(reader, writer, "POST", target, [*first, *headers])


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, target: str, headers: Headers
) -> Answer:
    """As ``request``, over a connection that is there already (made with ``limit=READ_BYTES``); ``headers`` are all."""
    try:
        writer.write(_head(f"{method} {target} HTTP/1.1", headers))
        await writer.drain()
        status, answered = _parse_head(await _read_head(reader))
        if status == 101:
            return Answer(status, answered, connection=Connection(reader, writer))
        body = await _read_body(reader, answered)
    except BaseException:
        writer.close()
        raise
    writer.close()
    return Answer(status, answered, body)


def _head(line: str, headers: Headers) -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers), "", ""]).encode("latin-1")


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as err:
        raise BadAnswer("the server broke off before it answered the upgrade") from err


def _parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise BadAnswer(f"the server answered {first[:80]!r}, which is no HTTP/1.1")
    pairs = (line.partition(":") for line in lines)
    return int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    length = headers.get("content-length", "")
    wanted = min(int(length), ERROR_BYTES_MAX) if length.isdigit() else ERROR_BYTES_MAX
    body = b""
    while len(body) < wanted and (piece := await reader.read(wanted - len(body))):
        body += piece
    return body

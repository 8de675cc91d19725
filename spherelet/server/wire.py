"""What SPDY sessions travel on: an upgraded connection (kubectl before 1.31), or a WebSocket (kubectl since)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from aiohttp import WSMsgType, web

from common import upgrade
from spherelet.server import spdy

PROTOCOL: Final = "SPDY/3.1"
VERSION_HEADER: Final = "X-Stream-Protocol-Version"
ACCEPTED_HEADER: Final = "X-Accepted-Stream-Protocol-Versions"
HEARTBEAT_S: Final = 10.0
LEAVE_S: Final = 300.0
"""How long a client may take to close a finished session. Closing first could cost it what it has not read yet."""


class Wire(Protocol):
    """A byte stream both ways, with flow control: ``send`` waits for a slow client."""

    async def receive(self) -> bytes:
        """At least a byte; empty once the client has left."""
        ...

    async def send(self, data: bytes) -> None:
        """Raises ``ConnectionError`` when the client has left."""
        ...

    async def close(self) -> None: ...


class ConnectionWire:
    """SPDY directly on the connection."""

    def __init__(self, connection: upgrade.Connection) -> None:
        self._connection = connection

    async def receive(self) -> bytes:
        return await self._connection.read()

    async def send(self, data: bytes) -> None:
        await self._connection.write(data)

    async def close(self) -> None:
        """Let the client take everything and leave."""
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self._connection.flush()
            async with asyncio.timeout(LEAVE_S):
                while await self._connection.read():
                    pass
        self._connection.close()


class WebSocketWire:
    """SPDY in the binary messages of a WebSocket, cut anywhere."""

    def __init__(self, websocket: web.WebSocketResponse) -> None:
        self._websocket = websocket

    async def receive(self) -> bytes:
        async for message in self._websocket:
            if message.type is WSMsgType.BINARY and message.data:
                data: bytes = message.data
                return data
        return b""

    async def send(self, data: bytes) -> None:
        await self._websocket.send_bytes(data)

    async def close(self) -> None:
        await self._websocket.close()


def wants_spdy(request: web.Request) -> bool:
    """Whether the client asks for an upgrade to SPDY."""
    return request.headers.get("Upgrade", "").upper() == PROTOCOL


@contextlib.asynccontextmanager
async def accept_spdy(request: web.Request, protocols: Sequence[str]) -> AsyncIterator[ConnectionWire]:
    """Upgrade; the first protocol that the client offers and ``protocols`` has is spoken.

    Raises 403 when there is none, as upstream. The handler returns ``upgrade.Detached()``.
    """
    lists = request.headers.getall(VERSION_HEADER, [])
    offered = [each.strip() for text in lists for each in text.split(",") if each.strip()]
    chosen = next((each for each in offered if each in protocols), None)
    if chosen is None:
        text = f"unable to upgrade: {VERSION_HEADER} offers {offered}, this server speaks {' or '.join(protocols)}\n"
        raise web.HTTPForbidden(text=text, headers={ACCEPTED_HEADER: ", ".join(protocols)})
    async with upgrade.accept(request, {"Upgrade": PROTOCOL, VERSION_HEADER: chosen}) as connection:
        yield ConnectionWire(connection)


async def heartbeat(wire: Wire) -> None:
    """Ping for ever. Answers do not matter: a write is what finds out that the client's machine is gone.

    A session that waits for a container to take its input does not read, and so would not see the client leave.
    """
    number = 2
    with contextlib.suppress(ConnectionError):
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            await wire.send(spdy.ping(number))
            number = number % 0x7FFFFFFE + 2

"""Logs over a WebSocket, for clients that can read no other stream (browsers): each message is a piece of the log.

Spec: apiserver ``util/wsstream`` (``NewDefaultReaderProtocols``): binary messages, or base64 in text messages.
"""

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from controller.api.request import Write
from controller.api.status import bad_request

BINARY: Final = "binary.k8s.io"
BASE64: Final = "base64.binary.k8s.io"
CLOSE_TIMEOUT_S: Final = 2.0


def wanted(http: web.BaseRequest | None) -> bool:
    """Whether the client asks for a WebSocket. Raises ``ApiError`` 400 when it offers only unknown subprotocols."""
    if http is None or http.headers.get("Upgrade", "").lower() != "websocket":
        return False
    offered = [part.strip() for part in http.headers.get("Sec-WebSocket-Protocol", "").split(",") if part.strip()]
    if offered and not {BINARY, BASE64} & set(offered):
        raise bad_request(f"none of the subprotocols {', '.join(offered)} is supported: use {BINARY} or {BASE64}")
    return True


async def send(http: web.BaseRequest, run: Callable[[Write], Awaitable[None]]) -> web.StreamResponse:
    """Upgrade, send what ``run`` writes, and close; ends early when the client leaves."""
    socket = web.WebSocketResponse(protocols=(BINARY, BASE64), compress=False, timeout=CLOSE_TIMEOUT_S)
    await socket.prepare(http)

    async def write(piece: bytes) -> None:
        if socket.ws_protocol == BASE64:
            await socket.send_str(b64encode(piece).decode())
        else:
            await socket.send_bytes(piece)

    async def give() -> None:
        with contextlib.suppress(ConnectionError):
            await run(write)

    async def listen() -> None:
        async for _ in socket:
            pass  # a reader has nothing to say

    async with asyncio.TaskGroup() as group:
        giving, listening = group.create_task(give()), group.create_task(listen())
        await asyncio.wait((giving, listening), return_when=asyncio.FIRST_COMPLETED)
        giving.cancel()
        listening.cancel()
    with contextlib.suppress(ConnectionError):
        await socket.close()
    return socket

"""A TCP connection from the control plane into a pod, through the port-forward of the pod's host.

The control plane is on the underlay only: pods' addresses lead nowhere from here, and need not. What is behind
``through`` sees an ordinary connected socket.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import aiohttp

from common.errors import SphereError
from controller.api.spherelets import Endpoint, Spherelets

T = TypeVar("T")
CHANNELS: Final = "v4.channel.k8s.io"
DATA: Final = 0
PORT_BYTES: Final = 2
"""Each channel's first message is the port that it belongs to."""
READ_BYTES: Final = 64 << 10


class TunnelBroken(ConnectionError):
    """The pod's host could not connect to the port; the text says why."""


async def through(
    spherelets: Spherelets,
    endpoint: Endpoint,
    pod: tuple[str, str],
    port: int,
    use: Callable[[socket.socket], Awaitable[T]],
) -> T:
    """``await use(connection)`` to ``port`` of the pod (namespace, name); closed when that returns.

    Raises what ``use`` raises of ``OSError``, ``aiohttp.ClientError`` and ``SphereError``; ``TunnelBroken`` instead
    when it failed because the pod does not listen; ``ApiError`` when its host does not answer.
    """
    path = f"/portForward/{pod[0]}/{pod[1]}"
    node = await spherelets.open_websocket(endpoint, path, [("port", str(port))], [CHANNELS])
    inner, outer = socket.socketpair()
    outer.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=inner)
    why: list[str] = []
    problem: Exception | None = None
    try:
        async with asyncio.TaskGroup() as group:
            ways = [group.create_task(_up(reader, node)), group.create_task(_down(node, writer, why))]
            try:
                result = await use(outer)
            except (OSError, aiohttp.ClientError, SphereError) as err:
                problem = err
            finally:
                for way in ways:
                    way.cancel()
    finally:
        outer.close()
        writer.close()
        await node.close()
    if problem is not None:
        raise TunnelBroken(why[0]) if why else problem
    return result


async def _up(reader: asyncio.StreamReader, node: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        while piece := await reader.read(READ_BYTES):
            await node.send_bytes(bytes((DATA,)) + piece)


async def _down(node: aiohttp.ClientWebSocketResponse, writer: asyncio.StreamWriter, why: list[str]) -> None:
    begun: set[int] = set()
    with contextlib.suppress(ConnectionError, aiohttp.ClientError):
        async for message in node:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, payload = message.data[0], message.data[1:]
            if channel not in begun:
                begun.add(channel)
                payload = payload[PORT_BYTES:]
            if channel != DATA and payload:
                why.append(payload.decode(errors="replace"))
                break
            writer.write(payload)
            await writer.drain()
    # The server has ended its side; what it sent is in the socket.
    with contextlib.suppress(ConnectionError):
        writer.write_eof()

"""Upgraded connections between our own client and an aiohttp server, over TLS on the loopback device."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from common import upgrade
from common.tls import client_context, server_context
from tests.support.pki import TestCa

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
WANTED = [("Upgrade", "test/1")]


class Served:
    """A server on a free port."""

    def __init__(self, server: web.Server, port: int, context: ssl.SSLContext) -> None:
        self.server = server
        self.port = port
        self.context = context

    async def ask(self, target: str = "/") -> upgrade.Answer:
        return await upgrade.request("127.0.0.1", self.port, self.context, target, WANTED)

    async def connect(self) -> upgrade.Connection:
        connection = (await self.ask()).connection
        assert connection is not None
        return connection


@contextlib.asynccontextmanager
async def serving(folder: Path, handler: Handler) -> AsyncIterator[Served]:
    ca = TestCa.create(folder)
    server = web.Server(handler, handler_cancellation=True)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    context = server_context(ca.issue("server"), client_certificate=True)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield Served(server, runner.addresses[0][1], client_context(ca.issue("client")))
    finally:
        await runner.cleanup()


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    async with upgrade.accept(request, {"Upgrade": "test/1", "X-Path": request.path_qs}) as connection:
        while piece := await connection.read():
            await connection.write(piece)
    return upgrade.Detached()


async def test_bytes_go_both_ways_and_the_server_forgets_the_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as served:
        answer = await served.ask("/a?b=c%20d")
        assert (answer.status, answer.headers["upgrade"], answer.headers["x-path"]) == (101, "test/1", "/a?b=c%20d")
        assert answer.connection is not None
        await answer.connection.write(b"over and back")
        received = b""
        async with asyncio.timeout(10):
            while len(received) < 13:
                received += await answer.connection.read()
        assert received == b"over and back"
        assert len(served.server.connections) == 1
        answer.connection.close()
        async with asyncio.timeout(10):
            while served.server.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_refusal_is_an_ordinary_answer(tmp_path: Path) -> None:
    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        raise web.HTTPForbidden(text="not you")

    async with serving(tmp_path, refuse) as served:
        answer = await served.ask()
        assert (answer.status, answer.body, answer.connection) == (403, b"not you", None)


async def test_what_was_written_before_the_server_closed_arrives(tmp_path: Path) -> None:
    async def speak(request: web.BaseRequest) -> web.StreamResponse:
        async with upgrade.accept(request, {"Upgrade": "test/1"}) as connection:
            await connection.write(bytes(1 << 20))
            await connection.flush()
        return upgrade.Detached()

    async with serving(tmp_path, speak) as served:
        connection = await served.connect()
        size = 0
        async with asyncio.timeout(10):
            while piece := await connection.read():
                size += len(piece)
        assert size == 1 << 20
        connection.close()


async def test_a_client_that_does_not_read_stops_the_server(tmp_path: Path) -> None:
    written = 0
    cancelled = asyncio.Event()

    async def flood(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        async with upgrade.accept(request, {"Upgrade": "test/1"}) as connection:
            try:
                while True:
                    await connection.write(bytes(64 << 10))
                    written += 64 << 10
            except (asyncio.CancelledError, ConnectionError):
                cancelled.set()
                raise

    async with serving(tmp_path, flood) as served:
        connection = await served.connect()
        before = -1
        async with asyncio.timeout(20):
            while before != written or not written:
                before = written
                await asyncio.sleep(0.3)
        assert written < 64 << 20
        connection.close()
        async with asyncio.timeout(10):
            await cancelled.wait()


async def test_what_is_no_http_is_refused(tmp_path: Path) -> None:
    ca = TestCa.create(tmp_path)

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"who is there?\r\n\r\n")
        writer.close()

    context = server_context(ca.issue("server"), client_certificate=True)
    async with await asyncio.start_server(babble, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(upgrade.BadAnswer, match="no HTTP"):
            await upgrade.request("127.0.0.1", port, client_context(ca.issue("client")), "/", WANTED)

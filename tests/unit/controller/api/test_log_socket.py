"""Logs over a WebSocket, as wsstream's clients read them."""

import asyncio
from base64 import b64encode

import aiohttp
import pytest
from aiohttp import web

from controller.api import log_socket
from controller.api.request import Write
from controller.api.status import ApiError


class Source:
    """A log of two pieces; one that follows goes on until it is cancelled."""

    def __init__(self, *, follow: bool) -> None:
        self._follow = follow
        self.ended = asyncio.Event()

    async def run(self, write: Write) -> None:
        try:
            await write(b"container is alive\n")
            await write(b"\xff\0\n")
            if self._follow:
                await asyncio.Event().wait()
        finally:
            self.ended.set()


async def _serve(source: Source) -> web.ServerRunner:
    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        try:
            if log_socket.wanted(http):
                return await log_socket.send(http, source.run)
        except ApiError as err:
            return web.Response(status=err.code, text=err.message)
        return web.Response(text="plain")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


@pytest.mark.parametrize(
    ("protocols", "pieces"),
    [
        ((log_socket.BINARY,), [b"container is alive\n", b"\xff\0\n"]),
        ((log_socket.BASE64,), [b64encode(b"container is alive\n").decode(), b64encode(b"\xff\0\n").decode()]),
        ((), [b"container is alive\n", b"\xff\0\n"]),
    ],
)
async def test_the_log_comes_in_messages_and_then_the_end(protocols: tuple[str, ...], pieces: list[object]) -> None:
    source = Source(follow=False)
    runner = await _serve(source)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(10):
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            async with session.ws_connect(url, protocols=protocols) as socket:
                assert socket.protocol == (protocols[0] if protocols else None)
                assert [message.data async for message in socket] == pieces
                assert socket.close_code == 1000
            async with session.get(url) as answer:
                assert await answer.text() == "plain"
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(url, protocols=("v4.channel.k8s.io",))
            assert refused.value.status == 400
    finally:
        await runner.cleanup()


async def test_a_follower_that_leaves_ends_the_reading() -> None:
    source = Source(follow=True)
    runner = await _serve(source)
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(10):
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            async with session.ws_connect(url, protocols=(log_socket.BINARY,)) as socket:
                assert await socket.receive_bytes() == b"container is alive\n"
            await source.ended.wait()
    finally:
        await runner.cleanup()

"""When the output of a command that has ended counts as complete."""

import asyncio
import os
import time
from typing import Any

from aiohttp import web

from spherelet.descriptors import Descriptor
from spherelet.server.channels import Channels, EndStdin, Feed, Resize
from spherelet.server.commands import DRAIN_S, Output


class SlowClient(Channels):
    """Takes a long time for its first piece."""

    def __init__(self, delay_s: float) -> None:
        self.received = b""
        self._delay_s = delay_s

    async def send(self, channel: int, payload: bytes) -> None:
        delay_s, self._delay_s = self._delay_s, 0.0
        await asyncio.sleep(delay_s)
        self.received += payload

    async def pump_in(self, stdin: Feed, end_stdin: EndStdin, resize: Resize) -> None: ...

    async def finish(self, status: dict[str, Any]) -> None: ...

    @property
    def response(self) -> web.StreamResponse:
        return web.Response()


async def test_a_slow_client_gets_all_of_it() -> None:
    read_end, write_end = os.pipe()
    stream, client, output = Descriptor(read_end), SlowClient(2 * DRAIN_S), Output()
    os.write(write_end, bytes(60_000))
    async with asyncio.TaskGroup() as group:
        group.create_task(output.pump(client, 1, stream))
        await asyncio.sleep(0)
        output.end()
        os.close(write_end)
    assert len(client.received) == 60_000
    stream.close()


async def test_a_pipe_that_a_background_process_holds_open_is_not_waited_for() -> None:
    read_end, write_end = os.pipe()
    stream, client, output = Descriptor(read_end), SlowClient(0), Output()
    os.write(write_end, b"all")
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(output.pump(client, 1, stream))
        await asyncio.sleep(0.01)
        output.end()
    assert client.received == b"all"
    assert DRAIN_S / 2 < time.monotonic() - started < 10 * DRAIN_S
    os.close(write_end)
    stream.close()

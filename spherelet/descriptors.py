"""Awaitable reads and writes of raw file descriptors: pipes, pseudo-terminals, packet sockets, inotify.

Unlike asyncio's transports, nothing is buffered here: a slow consumer slows the producer down, and a packet stays a
packet.
"""

import asyncio
import contextlib
import os
from typing import Final

CHUNK: Final = 32 << 10


class Descriptor:
    """Owner of a non-blocking file descriptor. One reader and one writer at a time."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd

    async def read(self, size: int = CHUNK) -> bytes:
        """Bytes, or one packet; empty at the end, which is also how a closed pseudo-terminal looks."""
        while self.fd >= 0:
            try:
                return os.read(self.fd, size)
            except BlockingIOError:
                await self._ready(read=True)
            except OSError:
                return b""
        return b""

    async def write(self, data: bytes) -> None:
        """Write all of ``data``. Raises ``OSError`` when nobody reads any more."""
        view = memoryview(data)
        while view:
            if self.fd < 0:
                raise BrokenPipeError
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:
                await self._ready(read=False)

    async def _ready(self, *, read: bool) -> None:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not waiter.done():
                waiter.set_result(None)

        add, remove = (loop.add_reader, loop.remove_reader) if read else (loop.add_writer, loop.remove_writer)
        fd = self.fd
        add(fd, wake)
        try:
            await waiter
        finally:
            remove(fd)

    def close(self) -> None:
        """Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

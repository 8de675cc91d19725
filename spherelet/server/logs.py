"""``GET /containerLogs/...``: the log file of a container, from its tail or from a time, and then as it grows."""

import asyncio
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spherelet import inotify
from spherelet.server.crilog import Selection, render_lines, tail_offset

BLOCK: Final = 64 << 10
LINE_BYTES_MAX: Final = 1 << 20
"""A record longer than this (conmon writes 16 KiB ones at most) is not a record: it is dropped."""
ROTATION_S_MAX: Final = 2.0


@dataclass(frozen=True, slots=True)
class LogRequest:
    """Parsed query. ``tail_lines`` and ``limit_bytes`` None mean all."""

    selection: Selection
    follow: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None


async def read(path: Path, request: LogRequest, *, ended: bool) -> AsyncGenerator[bytes, None]:
    """What the client gets, in pieces. With ``follow``, ends when the writer closes the file (``ended``: it has).

    Raises ``FileNotFoundError`` before the first piece when there is no log.
    """
    left = request.limit_bytes
    async for piece in _rendered(path, request, ended=ended):
        if left is None:
            yield piece
            continue
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


async def _rendered(path: Path, request: LogRequest, *, ended: bool) -> AsyncGenerator[bytes, None]:
    tail = request.tail_lines if not request.selection.stream else None
    if request.tail_lines is not None and tail is None:
        async for piece in _tail_of_stream(path, request):
            yield piece
        if not request.follow or ended:
            return
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    watch = None
    try:
        if request.follow and not ended:
            watch = inotify.Watch(path, inotify.MODIFY | inotify.CLOSE_WRITE)
        position = os.fstat(file).st_size if request.tail_lines is not None and tail is None else 0
        if tail is not None:
            position = await asyncio.to_thread(_find_tail, file, tail)
        rest = b""
        closed = False
        while True:
            block = os.pread(file, BLOCK, position)
            if block:
                position += len(block)
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                if len(rest) > LINE_BYTES_MAX:
                    rest = b""
                text = b"".join(render_lines(lines, request.selection))
                if text:
                    yield text
                await asyncio.sleep(0)
            elif watch is None or closed:
                switched = await _rotated(path, file) if closed else None
                if switched is None:
                    return
                watch_old, file_old = watch, file
                file, watch, position, rest, closed = switched[0], switched[1], 0, b"", False
                os.close(file_old)
                if watch_old is not None:
                    watch_old.close()
            elif await watch.wait() & inotify.CLOSE_WRITE:
                closed = True
    finally:
        os.close(file)
        if watch is not None:
            watch.close()


async def _rotated(path: Path, file: int) -> tuple[int, inotify.Watch] | None:
    """The new file at ``path`` when rotation replaced the one open as ``file``; None: the writer is gone.

    conmon closes the renamed file before it makes the new one: in between there is none at ``path``.
    """
    try:
        async with asyncio.timeout(ROTATION_S_MAX):
            while not os.access(path, os.F_OK) and os.access(path.parent, os.F_OK):  # noqa: ASYNC110 - for an instant
                await asyncio.sleep(0.005)
    except TimeoutError:
        return None
    try:
        if os.stat(path).st_ino == os.fstat(file).st_ino:
            return None
        watch = inotify.Watch(path, inotify.MODIFY | inotify.CLOSE_WRITE)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), watch
    except OSError:
        return None


async def _tail_of_stream(path: Path, request: LogRequest) -> AsyncGenerator[bytes, None]:
    """The last lines of one stream: records of the other do not count, so the whole file is filtered."""

    def collect() -> bytes:
        text = b"".join(render_lines(path.read_bytes().split(b"\n"), request.selection))
        lines = text.splitlines(keepends=True)
        return b"".join(lines[len(lines) - min(len(lines), request.tail_lines or 0) :])

    text = await asyncio.to_thread(collect)
    if text:
        yield text


def _find_tail(file: int, lines: int) -> int:
    """Offset where the last ``lines`` lines begin, reading backwards in growing blocks."""
    size = os.fstat(file).st_size
    span = BLOCK
    while True:
        begin = max(0, size - span)
        block = os.pread(file, size - begin, begin)
        offset = tail_offset(block, lines)
        if offset >= 0:
            return begin + offset
        if begin == 0:
            return 0
        span *= 4

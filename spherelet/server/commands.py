"""``/exec`` and ``/attach``: a terminal or plain streams between a client and a container."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from aiohttp import web

from common.errors import SphereError
from common.logs import logger
from spherelet import execution
from spherelet.descriptors import Descriptor
from spherelet.model import ContainerState
from spherelet.server.channels import Channels, until_first, websocket_channels
from spherelet.server.remotecommand import STDERR, STDOUT, exit_status, failure_status
from spherelet.server.spdy_channels import spdy_channels
from spherelet.server.wire import wants_spdy

log = logger("streams")
DRAIN_S = 0.5
"""How long output is waited for after a command ended: its background children may hold the pipes open for ever."""
CONMON_STDOUT, CONMON_STDERR = 2, 3
CONMON_RESIZE = 1


def flag(request: web.Request, name: str) -> bool:
    """A boolean query parameter; ``input``/``output``/``error`` are kubelet's names of the streams."""
    old = {"stdin": "input", "stdout": "output", "stderr": "error"}.get(name, name)
    return request.query.get(name, request.query.get(old, "")).lower() in ("1", "true")


@contextlib.asynccontextmanager
async def open_channels(request: web.Request, *, stdin: bool, stdout: bool, stderr: bool) -> AsyncIterator[Channels]:
    """Upgrade to what the client asks for: SPDY or WebSocket. Raises an HTTP error when it asks for nothing served."""
    if wants_spdy(request):
        async with spdy_channels(request, stdin=stdin, stdout=stdout, stderr=stderr) as channels:
            yield channels
    else:
        async with websocket_channels(request, stdout=stdout, stderr=stderr) as channels:
            yield channels


async def handle_exec(request: web.Request, command: Sequence[str], state: ContainerState) -> web.StreamResponse:
    """Run ``?command=..&command=..`` in the container and end with its exit status."""
    argv = request.query.getall("command", [])
    if not argv:
        raise web.HTTPBadRequest(text="you must specify at least 1 command for the container\n")
    tty, stdin = flag(request, "tty"), flag(request, "stdin")
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr") and not tty
    async with open_channels(request, stdin=stdin, stdout=stdout, stderr=stderr) as channels:
        status = failure_status("the client went away")
        try:
            session = execution.start(command, state, argv, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
            status = await _converse(channels, session, tty=tty) or status
        except SphereError as err:
            status = failure_status(f"error executing command in container: {err}")
        except BaseExceptionGroup as group:
            if group.subgroup(lambda err: not isinstance(err, OSError | SphereError)):
                raise
            log.info("exec session broke", pod=state.pod_uid, reason=str(group.exceptions[0]))
            status = failure_status(f"error streaming: {group.exceptions[0]}")
        await channels.finish(status)
        return channels.response


async def _converse(
    channels: Channels, starting: contextlib.AbstractAsyncContextManager[execution.Session], *, tty: bool
) -> dict[str, Any] | None:
    """Carry both ways until the command ends: its exit status; None when the client left first."""
    status: dict[str, Any] | None = None
    async with starting as session:
        feed, end_stdin = _stdin_of(session, tty=tty)

        async def run() -> None:
            nonlocal status
            status = exit_status(await _output(channels, session))

        async def listen() -> None:
            await channels.pump_in(feed, end_stdin, session.resize)

        await until_first(run(), listen())
    return status


def _stdin_of(
    session: execution.Session, *, tty: bool
) -> tuple[Callable[[bytes], Awaitable[None]], Callable[[], None]]:
    stdin = session.stdin

    async def feed(payload: bytes) -> None:
        if stdin is not None and stdin.fd >= 0:
            await stdin.write(payload)

    def end() -> None:
        if stdin is not None and not tty:
            stdin.close()

    return feed, end


class Output:
    """What a command prints: after its end, only what still comes without a pause of ``DRAIN_S``.

    The time that a slow client takes does not count.
    """

    def __init__(self) -> None:
        self._over = False
        self._reads: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """The command has ended."""
        self._over = True
        for limit in self._reads:
            limit.reschedule(asyncio.get_running_loop().time() + DRAIN_S)

    async def pump(self, channels: Channels, channel: int, stream: Descriptor) -> None:
        """Forward what ``stream`` yields until its end."""
        while piece := await self._read(stream):
            await channels.send(channel, piece)

    async def _read(self, stream: Descriptor) -> bytes:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S if self._over else None) as limit:
                self._reads.add(limit)
                try:
                    return await stream.read()
                finally:
                    self._reads.discard(limit)
        return b""


async def _output(channels: Channels, session: execution.Session) -> int:
    """Forward output until the command ended and its output is drained; its exit status."""
    output = Output()
    async with asyncio.TaskGroup() as group:
        for channel, stream in ((STDOUT, session.stdout), (STDERR, session.stderr)):
            if stream is not None:
                group.create_task(output.pump(channels, channel, stream))
        code = await session.wait()
        output.end()
    return code


async def handle_attach(
    request: web.Request, state: ContainerState, *, stdin: bool, once: bool, tty: bool
) -> web.StreamResponse:
    """Join the container's own streams. ``stdin``, ``once`` (``stdinOnce``) and ``tty`` are what the container has, not
    what is asked. Where standard input stays open for others, a client whose input has ended is let go, as by CRI's.
    """
    stdin = stdin and flag(request, "stdin")
    stdout, stderr = flag(request, "stdout"), flag(request, "stderr") and not tty
    try:
        connection = connect_attach(state)
    except OSError as err:
        raise web.HTTPInternalServerError(text=f"unable to attach to container {state.name}: {err}\n") from err
    try:
        async with open_channels(request, stdin=stdin, stdout=stdout, stderr=stderr) as channels:
            closing = once and not tty
            await _join(channels, connection, state, stdin=stdin, stdout=stdout, stderr=stderr, closing=closing)
            await channels.finish(exit_status(0))
            return channels.response
    finally:
        connection.close()


async def _join(
    channels: Channels,
    connection: socket.socket,
    state: ContainerState,
    *,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    closing: bool,
) -> None:
    """Carry both ways until the container or the client ends it. ``closing``: the client's end of input is the
    container's too."""
    stream = Descriptor(connection.fileno())
    over = asyncio.Event()

    async def forward() -> None:
        wanted = {CONMON_STDOUT: (STDOUT, stdout), CONMON_STDERR: (STDERR, stderr)}
        while packet := await stream.read():
            channel, asked = wanted.get(packet[0], (STDOUT, False))
            if asked:
                await channels.send(channel, packet[1:])

    async def feed(payload: bytes) -> None:
        if stdin:
            for start in range(0, len(payload), 8192):
                await stream.write(payload[start : start + 8192])

    def end_stdin() -> None:
        if stdin and closing:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        elif stdin:
            over.set()

    async def let_go() -> None:
        await over.wait()

    def resize(rows: int, columns: int) -> None:
        control(state, CONMON_RESIZE, rows, columns)

    async def listen() -> None:
        await channels.pump_in(feed, end_stdin, resize)

    await until_first(forward(), listen(), let_go())


def connect_attach(state: ContainerState) -> socket.socket:
    """Connect to conmon's attach socket, whose path may be longer than an address holds."""
    directory = os.open(state.attach_socket.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{directory}/{state.attach_socket.name}")
    except OSError:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


def control(state: ContainerState, kind: int, first: int = 0, second: int = 0) -> None:
    """Write a message to conmon's control FIFO; nothing happens when conmon is gone."""
    with contextlib.suppress(OSError):
        fifo = os.open(state.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fifo, f"{kind} {first} {second}\n".encode())
        finally:
            os.close(fifo)

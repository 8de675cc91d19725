"""Commands inside a running container, by the OCI runtime's ``exec``: for exec requests, hooks and probes."""

import array
import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import tempfile
import termios
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from common.errors import Retryable
from spherelet.descriptors import Descriptor
from spherelet.model import ContainerState

OUTPUT_BYTES_MAX: Final = 10 << 10
"""How much of a probe's or hook's output is kept, as upstream."""


@dataclass(slots=True)
class Session:
    """A command in flight. Streams that were not asked for are None; with a terminal, ``stdout`` is the terminal."""

    process: asyncio.subprocess.Process
    pid_file: Path
    stdin: Descriptor | None
    stdout: Descriptor | None
    stderr: Descriptor | None

    async def wait(self) -> int:
        """Exit status; 128 + signal after a signal."""
        code = await self.process.wait()
        return 128 - code if code < 0 else code

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the kernel tells the foreground process."""
        if self.stdout is not None and self.stdout.fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.stdout.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the command itself (the runtime's helper then ends by itself)."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(self.pid_file.read_text()), number)

    def close(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()


def process_spec(config: dict[str, object], argv: Sequence[str], *, tty: bool) -> dict[str, object]:
    """The OCI ``process`` for an exec: the container's own user, environment and limits with other ``args``."""
    base = config["process"]
    assert isinstance(base, dict)
    spec = {key: value for key, value in base.items() if key != "consoleSize"}
    if tty and not any(str(pair).startswith("TERM=") for pair in spec.get("env") or ()):
        spec["env"] = [*(spec.get("env") or ()), "TERM=xterm"]
    return {**spec, "args": list(argv), "terminal": tty}


@contextlib.asynccontextmanager
async def start(
    command: Sequence[str],
    state: ContainerState,
    argv: Sequence[str],
    *,
    stdin: bool,
    stdout: bool = True,
    stderr: bool = True,
    tty: bool = False,
) -> AsyncIterator[Session]:
    """Run ``argv`` in the container. ``command`` is the OCI runtime with its global options.

    Leaving the context ends the command if it still runs. Raises ``Retryable`` when it cannot be started.
    """
    # Beside the container: what a kill -9 leaves goes with it.
    try:
        scratch = Path(tempfile.mkdtemp(prefix="exec-", dir=state.directory))
    except OSError as err:
        raise Retryable(f"cannot run a command in container {state.name}: {err}") from err
    child: list[int] = []
    ours: list[Descriptor | None] = []
    session: Session | None = None
    try:
        try:
            config = orjson.loads((state.bundle / "config.json").read_bytes())
        except (OSError, ValueError) as err:
            raise Retryable(f"container {state.name} has no readable bundle: {err}") from err
        (scratch / "process.json").write_bytes(orjson.dumps(process_spec(config, argv, tty=tty)))
        options = ["exec", "--process", str(scratch / "process.json"), "--pid-file", str(scratch / "pid")]
        if tty:
            session = await _with_terminal(command, state, options, scratch)
        else:
            for wanted, write_end in ((stdin, True), (stdout, False), (stderr, False)):
                ours.append(_pipe(child, wanted, ours_writes=write_end))
            process = await asyncio.create_subprocess_exec(
                *command, *options, state.id, stdin=child[0], stdout=child[1], stderr=child[2]
            )
            session = Session(process, scratch / "pid", *ours)
        while child:
            os.close(child.pop())
        yield session
    finally:
        while child:
            os.close(child.pop())
        for each in ours:
            if each is not None:
                each.close()
        if session is not None:
            await _end(session)
        shutil.rmtree(scratch, ignore_errors=True)


async def _end(session: Session) -> None:
    session.close()
    if session.process.returncode is None:
        session.kill(signal.SIGHUP)
        try:
            async with asyncio.timeout(1):
                await session.process.wait()
        except TimeoutError:
            session.kill(signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                session.process.kill()
            await session.process.wait()


def _pipe(child: list[int], wanted: bool, *, ours_writes: bool) -> Descriptor | None:
    if not wanted:
        child.append(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        return None
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    child.append(read_end if ours_writes else write_end)
    return Descriptor(write_end if ours_writes else read_end)


async def _with_terminal(command: Sequence[str], state: ContainerState, options: list[str], scratch: Path) -> Session:
    """Start with a pseudo-terminal, whose master the runtime hands over on a socket (OCI runtime command line)."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.setblocking(False)
        # The path may be longer than a socket's address holds, so both sides go by our open directory.
        directory = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, directory)
        console = f"/proc/{os.getpid()}/fd/{directory}/console"
        listener.bind(console)
        listener.listen(1)
        process = await asyncio.create_subprocess_exec(
            *command,
            *options,
            "--tty",
            "--console-socket",
            console,
            state.id,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.TaskGroup() as group:
            accepting = group.create_task(loop.sock_accept(listener))
            ending = group.create_task(process.wait())
            await asyncio.wait({accepting, ending}, return_when=asyncio.FIRST_COMPLETED)
            ending.cancel()
            if not accepting.done():
                accepting.cancel()
        if accepting.cancelled():
            assert process.stderr is not None
            said = (await process.stderr.read()).decode(errors="replace").strip()
            raise Retryable(said or f"the runtime ended with status {process.returncode} before the command ran")
        with accepting.result()[0] as connection:
            master = await _receive_descriptor(connection)
    terminal = Descriptor(master)
    return Session(process, scratch / "pid", terminal, terminal, None)


async def _receive_descriptor(connection: socket.socket) -> int:
    connection.setblocking(True)
    connection.settimeout(5)

    def receive() -> int:
        _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                return array.array("i", payload[:4])[0]
        raise Retryable("the runtime sent no terminal")

    return await asyncio.to_thread(receive)


async def run(
    command: Sequence[str], state: ContainerState, argv: Sequence[str], timeout_s: float | None = None
) -> tuple[int, str]:
    """Run ``argv`` to its end: exit status and the beginning of what it printed (both streams).

    Raises ``TimeoutError`` after ``timeout_s``; the command is then killed.
    """
    async with start(command, state, argv, stdin=False) as session:
        async with asyncio.timeout(timeout_s):
            async with asyncio.TaskGroup() as group:
                readers = [group.create_task(_collect(each)) for each in (session.stdout, session.stderr) if each]
                code = await session.wait()
                # A child in the background may keep the pipes open for ever; the command itself is over.
                await asyncio.wait(readers, timeout=0.2)
                session.close()
                for reader in readers:
                    reader.cancel()
        said = b"".join(reader.result() for reader in readers if reader.done() and not reader.cancelled())
    return code, said[:OUTPUT_BYTES_MAX].decode(errors="replace")


async def _collect(stream: Descriptor) -> bytes:
    kept = bytearray()
    with contextlib.suppress(asyncio.CancelledError):
        while piece := await stream.read():
            if len(kept) < OUTPUT_BYTES_MAX:
                kept += piece
    return bytes(kept)

"""Processes by posix_spawn (vfork: cost does not grow with our size) and pidfds (no SIGCHLD handler)."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OUTPUT_BYTES_MAX = 64 * 1024
SIGNALS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: ``code`` is negative after a signal; ``output`` what it wrote to the pipe."""

    code: int
    output: bytes


async def run(argv: Sequence[str], env: Mapping[str, str] | None = None, timeout_s: float = 60.0) -> Ended:
    """Run ``argv`` to its end; standard output and error are one bounded pipe. Kills it on timeout or cancellation."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(reader, False)
    actions = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]  # type: ignore[list-item]
    try:
        pid = spawn(argv, env, actions)
    except OSError:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    try:
        async with asyncio.timeout(timeout_s):
            code = await wait(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        await asyncio.shield(wait(pid))
        raise
    finally:
        output = drain(reader)
        os.close(reader)
    return Ended(code, output)


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str] | None,
    actions: Sequence[object],
    directory: Path = Path("/"),
) -> int:
    """posix_spawn in ``directory``, with default signals. The caller must ``wait``.

    Raises ``OSError`` if ``argv[0]`` cannot run.
    """
    # posix_spawn cannot change directory, and conmon leaves a file where it stands. Nothing here uses relative paths.
    os.chdir(directory)
    try:
        return os.posix_spawn(
            argv[0],
            list(argv),
            dict(env) if env is not None else dict(os.environ),
            file_actions=actions,  # type: ignore[arg-type]
            setsigdef=SIGNALS,
            setsigmask=(),
        )
    finally:
        os.chdir("/")


def drain(reader: int) -> bytes:
    """What is in a non-blocking pipe, up to a bound."""
    chunks = b""
    while len(chunks) < OUTPUT_BYTES_MAX:
        try:
            chunk = os.read(reader, 16384)
        except BlockingIOError:
            break
        if not chunk:
            break
        chunks += chunk
    return chunks


async def wait(pid: int) -> int:
    """Exit status of our child ``pid``; negative after a signal."""
    handle = os.pidfd_open(pid)
    try:
        await readable(handle)
    finally:
        os.close(handle)
    _, status = os.waitpid(pid, 0)  # noqa: ASYNC222 - it is gone: this does not wait
    return os.waitstatus_to_exitcode(status)


async def readable(handle: int) -> None:
    """Wait until file descriptor ``handle`` is readable (for a pidfd: its process is gone)."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(handle, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(handle)


class ExitWatch:
    """Calls back once when a process that need not be our child is gone."""

    def __init__(self, pid: int, callback: Callable[[], None]) -> None:
        """Raises ``ProcessLookupError`` if it is gone already."""
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle = os.pidfd_open(pid)
        self._loop.add_reader(self._handle, self._gone)

    def _gone(self) -> None:
        self.close()
        self._callback()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._handle >= 0:
            self._loop.remove_reader(self._handle)
            os.close(self._handle)
            self._handle = -1

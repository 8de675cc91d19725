"""Namespaces that a pod's containers share, pinned by bind mounts so that no process has to hold them.

A thread unshares, pins ``/proc/thread-self/ns/*`` and goes back: nothing is forked. The thread is discarded if it
cannot go back, because it would carry the pod's namespaces into later work.
"""

import asyncio
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from spherelet.runtime.mounts import MS_BIND, check, is_mount, libc, mount, unmount

CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWNET = 0x04000000, 0x08000000, 0x40000000
FLAGS = {"net": CLONE_NEWNET, "ipc": CLONE_NEWIPC, "uts": CLONE_NEWUTS}
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1


def pinned(directory: Path) -> tuple[str, ...]:
    """Kinds of namespaces that are pinned in ``directory``."""
    return tuple(kind for kind in FLAGS if is_mount(directory / kind))


async def pin(directory: Path, kinds: tuple[str, ...], hostname: str, sysctls: Mapping[str, str]) -> None:
    """Make new namespaces of ``kinds`` and pin them in ``directory``; ``lo`` is up, ``hostname`` and ``sysctls`` set.

    Idempotent: what is pinned already stays. Raises ``OSError``.
    """
    missing = tuple(kind for kind in kinds if not is_mount(directory / kind))
    if missing:
        await _in_thread(lambda: _pin(directory, missing, hostname, sysctls))


def unpin(directory: Path) -> None:
    """Let go of every pinned namespace in ``directory``; the kernel frees them with their last process."""
    for kind in FLAGS:
        path = directory / kind
        while unmount(path):
            pass
        path.unlink(missing_ok=True)


def _pin(directory: Path, kinds: tuple[str, ...], hostname: str, sysctls: Mapping[str, str]) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
        (directory / kind).touch(mode=0o600)
    check(libc.unshare(flags), f"namespaces {', '.join(kinds)}")
    if "net" in kinds:
        _loopback_up()
    if "uts" in kinds:
        name = hostname.encode()
        check(libc.sethostname(name, len(name)), "hostname")
    for name_, value in sysctls.items():
        with open("/proc/sys/" + name_.replace(".", "/"), "w", encoding="ascii") as file:
            file.write(value)
    for kind in kinds:
        mount(f"/proc/thread-self/ns/{kind}", directory / kind, "none", MS_BIND)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


async def _in_thread(work: Callable[[], None]) -> None:
    """Run ``work`` in a thread of its own: it may change namespaces, which die with the thread."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def body() -> None:
        try:
            work()
        except BaseException as err:
            loop.call_soon_threadsafe(finish, err)
        else:
            loop.call_soon_threadsafe(finish, None)

    threading.Thread(target=body, name="namespaces", daemon=True).start()
    await asyncio.shield(done)


async def inside(directory: Path, kind: str, work: Callable[[], None]) -> None:
    """Run ``work`` in a thread that has entered the pinned namespace ``kind`` of ``directory``."""

    def body() -> None:
        handle = os.open(directory / kind, os.O_RDONLY | os.O_CLOEXEC)
        try:
            check(libc.setns(handle, FLAGS[kind]), str(directory / kind))
        finally:
            os.close(handle)
        work()

    await _in_thread(body)

"""Sockets that live in a pod's network namespace while their owner stays in the host's."""

import ctypes
import os
import socket
from pathlib import Path
from typing import Final

from common.errors import Retryable

CLONE_NEWNET: Final = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def socket_in(netns: Path | None, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A non-blocking socket that belongs to ``netns`` (None: this process's own).

    The thread visits the namespace for two system calls and cannot be interrupted meanwhile (no await).
    Raises ``Retryable`` when the namespace is gone.
    """
    if netns is None:
        made = socket.socket(family, kind)
    else:
        try:
            target = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as err:
            raise Retryable(f"network namespace {netns} is gone: {err.strerror}") from err
        try:
            made = _visit(target, family, kind)
        finally:
            os.close(target)
    made.setblocking(False)
    return made


def _visit(target: int, family: int, kind: int) -> socket.socket:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(target, CLONE_NEWNET) != 0:
            raise Retryable(f"cannot enter the network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            return socket.socket(family, kind)
        finally:
            if _libc.setns(home, CLONE_NEWNET) != 0:
                os.abort()  # a thread left in a pod's network would serve the host's traffic there
    finally:
        os.close(home)

"""Waiting for a file to change, without polling (inotify(7))."""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from spherelet.descriptors import Descriptor

MODIFY: Final = 0x2
CLOSE_WRITE: Final = 0x8
MOVE_SELF: Final = 0x800
_libc = ctypes.CDLL(None, use_errno=True)
_EVENT: Final = struct.Struct("iIII")


class Watch:
    """An inotify instance that watches one file."""

    def __init__(self, path: Path, mask: int) -> None:
        fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1: raise fs.inotify.max_user_instances")
        self._descriptor = Descriptor(fd)
        if _libc.inotify_add_watch(fd, os.fsencode(path), mask) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, f"inotify_add_watch {path}: {os.strerror(number)}")

    async def wait(self) -> int:
        """The union of the masks of the events that came since the last call; waits for at least one."""
        data = await self._descriptor.read(4096)
        mask, position = 0, 0
        while position + _EVENT.size <= len(data):
            _, bits, _, length = _EVENT.unpack_from(data, position)
            mask |= bits
            position += _EVENT.size + length
        return mask

    def close(self) -> None:
        self._descriptor.close()

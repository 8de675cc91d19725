"""``subPath``: a part of a volume, safe against links that a container planted in it.

The path is resolved by openat2(2), which refuses to leave the volume; what it found is pinned by a bind mount of the
open descriptor, so nothing can be swapped between check and use.
"""

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import Final

from common.errors import Retryable, Terminal
from spherelet.runtime import mounts

_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def bind(volume: Path, sub: str, target: Path) -> Path:
    """Bind ``sub`` of ``volume`` at ``target`` and return it. A missing directory is created, with the volume's mode.

    Idempotent; what ``target`` shows follows when something else took the place of ``sub`` (an updated ConfigMap).
    Raises ``Terminal`` for a path that leaves the volume, ``Retryable`` for what may clear up.
    """
    parts = [part for part in sub.split("/") if part not in ("", ".")]
    if sub.startswith("/") or ".." in parts:
        raise Terminal(f'subPath "{sub}" must be relative and must not contain ".."')
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = _open_or_make(root, parts, sub)
    finally:
        os.close(root)
    try:
        if mounts.is_bound(target):
            if os.path.samestat(os.stat(target), os.fstat(found)):
                return target
            mounts.unmount(target)
            _remove_point(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(found).st_mode):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        mounts.mount(f"/proc/self/fd/{found}", target, "", mounts.MS_BIND)
    except OSError as err:
        raise Retryable(f'cannot mount subPath "{sub}": {err}') from err
    finally:
        os.close(found)
    return target


def _open_or_make(root: int, parts: list[str], sub: str) -> int:
    current = os.dup(root)
    for index, part in enumerate(parts):
        found, made = _open_beneath(root, "/".join(parts[: index + 1])), False
        if found == -errno.ENOENT:
            try:
                os.mkdir(part, 0o700, dir_fd=current)
                made = True
            except FileExistsError:
                pass  # a dangling link: resolved (and refused) below
            except OSError as err:
                os.close(current)
                raise Retryable(f'cannot create subPath "{sub}": {err.strerror}') from err
            found = _open_beneath(root, "/".join(parts[: index + 1]))
        os.close(current)
        if found < 0:
            if -found in (errno.EXDEV, errno.ELOOP):
                raise Terminal(f'subPath "{sub}" leaves its volume')
            raise Retryable(f'cannot open subPath "{sub}": {os.strerror(-found)}')
        if made:
            # By the descriptor: a container may have put a link in the directory's place meanwhile.
            os.chmod(f"/proc/self/fd/{found}", stat.S_IMODE(os.fstat(root).st_mode))
        current = found
    return current


def _remove_point(target: Path) -> None:
    """Remove an unmounted mount point: an empty directory or file of ours."""
    if target.is_dir():
        target.rmdir()
    else:
        target.unlink(missing_ok=True)


def _open_beneath(root: int, path: str) -> int:
    """A descriptor (O_PATH), or the negated errno."""
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    result = int(_libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how)))
    return result if result >= 0 else -ctypes.get_errno()

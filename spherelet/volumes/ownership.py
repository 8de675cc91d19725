"""``fsGroup`` on directories that outlive pods: everything below belongs to the group, and may be written by it.

Links are never followed: whoever wrote them may have been another pod. The top is changed last, so that a walk that
was cut short is seen as not done (``OnRootMismatch``).
"""

import os
import stat
from pathlib import Path


def give_to_group(top: Path, group: int, *, only_on_mismatch: bool) -> None:
    """Idempotent. Raises ``OSError``."""
    if only_on_mismatch and _is_given(os.stat(top), group):
        return
    for _, folders, files, handle in os.fwalk(top, topdown=False):
        for name in (*files, *folders):
            try:
                each = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
            except FileNotFoundError:
                continue
            try:
                _give(each, group)
            finally:
                os.close(each)
    each = os.open(top, os.O_PATH | os.O_CLOEXEC)
    try:
        _give(each, group)
    finally:
        os.close(each)


def _is_given(found: os.stat_result, group: int) -> bool:
    return found.st_gid == group and found.st_mode & 0o2070 == 0o2070


def _give(handle: int, group: int) -> None:
    found = os.fstat(handle)
    if stat.S_ISLNK(found.st_mode):
        return
    path, mode = f"/proc/self/fd/{handle}", stat.S_IMODE(found.st_mode)
    wanted = mode | (0o2770 if stat.S_ISDIR(found.st_mode) else 0o660)
    if found.st_gid != group:
        os.chown(path, -1, group)  # takes setgid away from files
    if wanted != mode or found.st_gid != group:
        os.chmod(path, wanted)

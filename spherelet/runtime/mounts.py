"""mount(2) and friends by ctypes: no ``mount`` process on the path of a pod."""

import ctypes
import errno
import os
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
MNT_DETACH = 2

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
libc.unshare.argtypes = (ctypes.c_int,)
libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
libc.sethostname.argtypes = (ctypes.c_char_p, ctypes.c_size_t)


def check(result: int, what: str) -> None:
    """Raise ``OSError`` for a failed libc call; ``what`` names the object."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: Path, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2). Raises ``OSError`` naming ``target``."""
    check(libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, options.encode() or None), str(target))


def unmount(target: Path) -> bool:
    """Detach ``target``. False if it is not a mount point or does not exist."""
    try:
        check(libc.umount2(os.fsencode(target), MNT_DETACH), str(target))
    except OSError as err:
        if err.errno in (errno.EINVAL, errno.ENOENT):
            return False
        raise
    return True


def overlay(layers: tuple[str, ...], upper: Path, work: Path, target: Path) -> None:
    """Mount an overlay of read-only ``layers`` (topmost first) with a writable ``upper`` at ``target``."""
    lower = ":".join(layers)
    options = _fitting(f"lowerdir={lower},upperdir={upper},workdir={work}", target)
    mount("overlay", target, "overlay", MS_NODEV, options)


def show(layers: tuple[str, ...], target: Path) -> None:
    """Mount read-only ``layers`` (topmost first) at ``target``, to be looked at only."""
    if not layers:
        mount("empty", target, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755")
    elif len(layers) == 1:  # an overlay needs two
        mount(layers[0], target, "", MS_BIND)
        mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    else:
        options = _fitting(f"lowerdir={':'.join(layers)}", target)
        mount("overlay", target, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, options)


def _fitting(options: str, target: Path) -> str:
    if len(options) >= 4000:  # one page is all that mount(2) takes
        raise OSError(errno.E2BIG, "the image has too many layers for one overlay mount", str(target))
    return options


def is_mount(path: Path) -> bool:
    """Whether another file system is mounted at ``path`` (also a namespace file); see ``is_bound`` for the same one."""
    try:
        return os.lstat(path).st_dev != os.lstat(path.parent).st_dev
    except FileNotFoundError:
        return False


def is_bound(path: Path) -> bool:
    """Whether ``path`` is a mount point, also of a part of the file system that it is on."""
    try:
        return _mount_id(path) != _mount_id(path.parent)
    except FileNotFoundError:
        return False


def _mount_id(path: Path) -> str:
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        lines = Path(f"/proc/self/fdinfo/{handle}").read_text(encoding="ascii").splitlines()
    finally:
        os.close(handle)
    return next(line for line in lines if line.startswith("mnt_id:"))


def below(prefix: Path) -> list[Path]:
    """Mount points at or below ``prefix``, deepest first."""
    found = []
    wanted = str(prefix)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            point = line.split(" ", 5)[4].replace("\\040", " ")
            if point == wanted or point.startswith(wanted + "/"):
                found.append(Path(point))
    return sorted(found, key=lambda each: (len(each.parts), str(each)), reverse=True)

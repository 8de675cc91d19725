"""Atomic replacement of a volume's files: what a reader opens below the volume is all old or all new.

The layout that applications rely on: real files in a directory ``..<timestamp>.<random>``, ``..data`` a link to it, and
each first path component a link through ``..data``. Swapping ``..data`` by rename(2) swaps everything.
"""

import contextlib
import os
import secrets
import shutil
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from spherelet.volumes.payload import Files

DATA: Final = "..data"
_READ_FOR_GROUP: Final = 0o440
_DIRECTORY_FOR_GROUP: Final = 0o2550


def write(volume: Path, files: Files, *, group: int | None = None) -> bool:
    """Make ``volume`` show exactly ``files``; False when it already did. ``group`` owns and may read them.

    Safe to repeat after a crash at any point.
    """
    current = _current(volume)
    changed = current is None or not _same(volume / current, files, group)
    if changed:
        fresh = f"..{datetime.now(UTC):%Y_%m_%d_%H_%M_%S}.{secrets.randbelow(2**32)}"
        _fill(volume / fresh, files, group)
        (volume / "..data_tmp").unlink(missing_ok=True)  # a crash may have left one
        os.symlink(fresh, volume / "..data_tmp")
        os.rename(volume / "..data_tmp", volume / DATA)
        current = fresh
    tops = {path.split("/", 1)[0] for path in files}
    for top in sorted(tops):
        _link(volume, top)
    for entry in os.scandir(volume):
        if entry.name in (DATA, current) or entry.name in tops:
            continue
        _remove(Path(entry.path))
    return changed


def _current(volume: Path) -> str | None:
    try:
        name = os.readlink(volume / DATA)
    except OSError:
        return None
    return name if name.startswith("..") and "/" not in name and (volume / name).is_dir() else None


def _same(directory: Path, files: Files, group: int | None) -> bool:
    found = set()
    for base, _, names in os.walk(directory):
        for name in names:
            path = Path(base) / name
            relative = str(path.relative_to(directory))
            found.add(relative)
            wanted = files.get(relative)
            if wanted is None:
                return False
            info = path.lstat()
            if stat.S_IMODE(info.st_mode) != _mode(wanted.mode, group) or path.read_bytes() != wanted.data:
                return False
    return found == set(files)


def _mode(mode: int, group: int | None) -> int:
    return mode if group is None else mode | _READ_FOR_GROUP


def _fill(directory: Path, files: Files, group: int | None) -> None:
    directory.mkdir(mode=0o755)
    for path, file in sorted(files.items()):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(file.data)
            while view:
                view = view[os.write(handle, view) :]
            if group is not None or file.uid is not None:
                os.fchown(handle, -1 if file.uid is None else file.uid, -1 if group is None else group)
            os.fchmod(handle, _mode(file.mode, group))  # after chown, which clears set-id bits
        finally:
            os.close(handle)
    for base, _, _ in os.walk(directory):
        if group is not None:
            os.chown(base, -1, group)
        os.chmod(base, 0o755 if group is None else 0o755 | _DIRECTORY_FOR_GROUP)


def _link(volume: Path, top: str) -> None:
    wanted = f"{DATA}/{top}"
    path = volume / top
    with contextlib.suppress(OSError):
        if os.readlink(path) == wanted:
            return
    if os.path.lexists(path):
        _remove(path)
    os.symlink(wanted, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

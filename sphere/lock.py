"""One `up` or `down` at a time on a box, and one cluster: the lock, and who holds it."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from common.errors import Terminal
from sphere.layout import LOCK_DIR, Layout


@contextlib.contextmanager
def held(what: str) -> Iterator[None]:
    """Hold the box's lock. Raises ``Terminal`` naming the holder when another command has it."""
    with _locked() as file:
        file.truncate(0)
        file.write(f"`sphere {what}` (pid {os.getpid()})")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _locked() -> TextIO:
    """The lock's file, locked. `down` removes it: a lock on a file that is not there any more holds nobody off."""
    path = LOCK_DIR / "lock"
    while True:
        LOCK_DIR.mkdir(mode=0o755, exist_ok=True)
        try:
            file = path.open("a+")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                file.seek(0)
                holder = file.read().strip() or "another command"
            raise Terminal(f"{holder} is at work on this machine's cluster; wait for it to end, or stop it") from None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
        file.close()


def claim(layout: Layout) -> None:
    """Note that the cluster of ``layout`` is the one on this box. Raises ``Terminal`` when another one is."""
    path = LOCK_DIR / "owner"
    with contextlib.suppress(FileNotFoundError):
        owner = path.read_text().strip()
        if owner != str(layout.run):
            raise Terminal(
                f"another cluster is up on this machine, kept in {owner}; "
                f"take it down first: SPHERE_RUN={owner} sphere down"
            )
    path.write_text(str(layout.run))


def check_owner(layout: Layout) -> None:
    """Raise ``Terminal`` when the cluster on this box is another directory's."""
    path = LOCK_DIR / "owner"
    if path.exists():
        claim(layout)


def release() -> None:
    """The box has no cluster any more."""
    (LOCK_DIR / "owner").unlink(missing_ok=True)
    (LOCK_DIR / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        LOCK_DIR.rmdir()

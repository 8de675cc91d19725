"""The box's cgroup hierarchies: what they are, and removal of ours. Works on version 1, hybrid and 2."""

import contextlib
import os
import signal
import time
from pathlib import Path

from sphere import topology
from sphere.commands import run, succeeds

MOUNT = Path("/sys/fs/cgroup")
REMOVE_DEADLINE_S = 30.0
"""A busy machine takes its time to end a PID namespace; its cgroups are held until then."""


def is_v2() -> bool:
    """Whether the unified hierarchy is the only one."""
    return (MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Root directories of all mounted hierarchies."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        fields = [line.split() for line in mounts]
    return sorted({Path(field[1]) for field in fields if field[2] in ("cgroup", "cgroup2")})


def needs_hugetlb_v1() -> bool:
    """Version 1, with a hugetlb controller that nobody mounted: crun insists on it."""
    return not is_v2() and _hugetlb_hierarchy() is not None and not (MOUNT / "hugetlb").is_dir()


def _hugetlb_hierarchy() -> int | None:
    """Number of the version 1 hierarchy that has the controller; 0 when none has, None without such a controller."""
    for line in Path("/proc/cgroups").read_text().splitlines():
        name, hierarchy, *_ = line.split()
        if name == "hugetlb":
            return int(hierarchy)
    return None


def remaining() -> list[Path]:
    """Our cgroups that still exist in mounted hierarchies."""
    return [path for root in hierarchies() if (path := root / topology.CGROUP_ROOT.strip("/")).is_dir()]


def kill(path: Path) -> None:
    """End what runs in ``path`` and below it."""
    deadline = time.monotonic() + REMOVE_DEADLINE_S
    while (pids := members(path)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def members(path: Path) -> set[int]:
    """PIDs of the processes in ``path`` and below it."""
    found: set[int] = set()
    for procs in path.rglob("cgroup.procs"):
        # A cgroup may go at any time, and one with threads of its own has no processes to list.
        with contextlib.suppress(OSError):
            found.update(int(word) for word in procs.read_text().split())
    return found - {0}  # of another PID namespace


def remove_all() -> None:
    """Remove our cgroups everywhere. Processes in them must be gone; the kernel may need a moment to see that."""
    for path in remaining():
        remove(path)
    if needs_hugetlb_v1() and _hugetlb_hierarchy():
        _remove_hidden_hugetlb()


def remove(path: Path) -> None:
    """Remove ``path`` and all below it, deepest first."""
    deadline = time.monotonic() + REMOVE_DEADLINE_S
    for directory, _, _ in os.walk(path, topdown=False):
        while True:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
            break


def _remove_hidden_hugetlb() -> None:
    """The hugetlb hierarchy is mounted inside machines only, and outlives them while it has directories."""
    target = topology.CGROUP_ROOT.strip("/")
    script = (
        "mount -t tmpfs none /mnt && mkdir /mnt/h && mount -t cgroup -o hugetlb none /mnt/h && "
        f"{{ [ ! -d /mnt/h/{target} ] || find /mnt/h/{target} -depth -type d -exec rmdir {{}} + ; }}"
    )
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    if not succeeds(argv):
        run(argv)

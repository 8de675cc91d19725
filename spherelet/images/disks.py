"""How full the file systems are that images are on."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of a file system, and those that are still to be had."""

    total: int
    available: int


def fullest(directories: Sequence[Path]) -> Disk:
    """The file system with the least left, in proportion, of those that ``directories`` are on. Raises ``OSError``."""
    found = [os.statvfs(each) for each in directories if each.exists()]
    disks = [Disk(each.f_blocks * each.f_frsize, each.f_bavail * each.f_frsize) for each in found]
    return min(disks, key=lambda disk: disk.available / max(1, disk.total), default=Disk(0, 0))

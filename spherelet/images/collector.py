"""Removes images that no pod of this host uses, the longest unused first, when their disk is nearly full.

Thresholds are kubelet's defaults. A pull that finds no room asks for it at once. Without a registry nothing is ever
removed, because it could not be had again: then none of this runs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc

from common.clock import Clock
from common.errors import SphereError
from common.logs import logger
from spherelet.images.disks import Disk, fullest
from spherelet.images.store import Held, Images

PERIOD_S: Final = 300.0
HIGH_SHARE: Final = 0.85
"""Nothing is removed while less of the disk than this is used."""
LOW_SHARE: Final = 0.80
"""Removal ends once no more than this is used."""
UNUSED_S_MIN: Final = 120.0
"""An image is kept this long after it came or was last used: the pod that it was pulled for may be about to start."""

log = logger("images")


@dataclass(frozen=True, slots=True)
class Needed:
    """What pods of this host use: references, digests or ids of images."""

    names: frozenset[str]

    def has(self, image: Held) -> bool:
        return not self.names.isdisjoint(image.names)


def excess(disk: Disk, *, pressed: bool) -> int:
    """Bytes to free: none below the high mark, unless somebody is in want of room (``pressed``)."""
    used = disk.total - disk.available
    if not pressed and used < disk.total * HIGH_SHARE:
        return 0
    return max(0, used - int(disk.total * LOW_SHARE))


def candidates(
    images: Iterable[Held], needed: Needed, used_at: Mapping[str, float], now: float, *, pressed: bool
) -> list[Held]:
    """Images that may go, the longest unused first. ``used_at``: seconds by id; who is in want waits for no age."""
    free = [each for each in images if not each.pinned and not needed.has(each)]
    if not pressed:
        free = [each for each in free if now - used_at.get(each.id, now) >= UNUSED_S_MIN]
    return sorted(free, key=lambda each: (used_at.get(each.id, now), each.id))


class Collector:
    """Looks now and then, and when a pull is in want of room."""

    def __init__(self, images: Images, clock: Clock, needed: Callable[[], Needed]) -> None:
        self._images = images
        self._clock = clock
        self._needed = needed
        self._used_at: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            pressed = await self._images.in_want.wait(PERIOD_S)
            try:
                await self.collect(pressed=pressed)
            except (SphereError, grpc.aio.AioRpcError, OSError) as err:
                log.info("images not collected", reason=str(err))

    async def collect(self, *, pressed: bool = False) -> list[str]:
        """Free what is too much; the ids of the images that were removed."""
        now = self._clock.monotonic()
        held = await self._images.held()
        needed = self._needed()
        fresh = {each.id: now for each in held if needed.has(each)}
        self._used_at = {each.id: self._used_at.get(each.id, now) for each in held} | fresh
        wanted = excess(fullest(await self._images.mount_points()), pressed=pressed)
        removed: list[str] = []
        for image in candidates(held, needed, self._used_at, now, pressed=pressed):
            if wanted <= 0:
                break
            if self._needed().has(image):
                continue  # a pod came for it while others were being removed
            await self._images.remove(image)
            log.info("image removed", object=image.title, bytes=image.size_bytes)
            removed.append(image.id)
            wanted -= image.size_bytes
        if wanted > 0:
            log.warning("disk of images is nearly full, and no other image is unused", bytes=wanted)
        return removed

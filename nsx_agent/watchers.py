"""Tasks that hear of what others did to this host, and wake the loop.

What arrives is taken at once, in the callback: a socket that stays readable while somebody waits keeps the event loop
spinning.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from common.clock import Clock
from common.logs import logger
from common.tasks import Wake
from nsx_agent.config import DNS_LOOK_S, SUSPECT_S

T = TypeVar("T")
log = logger("watchers")


class Readable(Protocol):
    """A source of notifications."""

    def fileno(self) -> int: ...


@contextmanager
def _heard(source: Readable, read: Callable[[], set[T]]) -> Iterator[tuple[Wake, set[T]]]:
    """Collects what ``read`` returns whenever ``source`` can be read. The wake says that there is something."""
    wake, found = Wake(), set[T]()

    def take() -> None:
        found.update(read())
        if found:
            wake.set()

    loop = asyncio.get_running_loop()
    loop.add_reader(source.fileno(), take)
    try:
        yield wake, found
    finally:
        loop.remove_reader(source.fileno())


async def watch_table(
    source: Readable, read: Callable[[], set[int]], is_own: Callable[[int], Awaitable[bool]], drift: Callable[[], None]
) -> None:
    """``read`` returns who changed our table; foreign changes are undone at once."""
    with _heard(source, read) as (wake, found):
        while True:
            await wake.wait()
            while found:
                if not await is_own(found.pop()):
                    drift()


async def watch_routes(
    source: Readable,
    read: Callable[[], set[str]],
    matters: Callable[[str], bool],
    suspect: Callable[[], None],
    clock: Clock,
) -> None:
    """``read`` returns what was done to links, routes and neighbours; the loop looks after its own, soon.

    ``matters`` is asked a little later, when most of what was under way is over.
    """
    with _heard(source, read) as (wake, found):
        while True:
            await wake.wait()
            await clock.sleep(SUSPECT_S)
            reasons = sorted(reason for reason in found if matters(reason))
            found.clear()
            if reasons:
                log.info("looking after routes and links", reason="; ".join(reasons))
                suspect()


async def watch_resolver(behind: Callable[[], bool], wake: Callable[[], None], clock: Clock) -> None:
    """A resolver that was restarted needs its records again."""
    while True:
        await clock.sleep(DNS_LOOK_S)
        if behind():
            wake()

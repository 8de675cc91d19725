"""Lets etcd forget history that nobody can ask for any more."""

from common.clock import Clock
from common.logs import logger
from controller.store.cache import Cache
from controller.store.etcd import Compacted, Kv, Unavailable

log = logger("compaction")
PERIOD_S = 300.0
"""etcd keeps at least this much history, so that a disconnected cache usually resumes without a relist."""


async def compact_forever(etcd: Kv, cache: Cache, clock: Clock) -> None:
    """Every period, compact to the revision of one period ago, until cancelled."""
    previous = 0
    while True:
        await clock.sleep(PERIOD_S)
        if 0 < previous < cache.revision:
            try:
                await etcd.compact(previous)
            except (Compacted, Unavailable) as err:
                log.info("compaction put off", reason=str(err))
            else:
                cache.compacted = previous
        previous = cache.revision

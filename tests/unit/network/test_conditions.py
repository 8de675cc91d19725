"""Realized follows reports, at a cost that does not grow with hosts times hosts."""

import asyncio
import random

import pytest

from common.clock import SystemClock
from common.messages import Manifest, Watermark
from controller.network.conditions import Conditions, Key, Verdict
from controller.network.planner import CLUSTER, Planner
from controller.network.realization import Realization
from controller.network.views import NODES, SERVICES, view_of
from tests.support.network_objects import a_node, a_service
from tests.support.network_world import Registry

HOSTS = [f"host-{number}" for number in range(200)]
KEY: Key = (SERVICES, "red", "web")


@pytest.mark.parametrize("seed", range(3))
async def test_reports_of_hosts_that_nobody_waits_for_cost_nothing(seed: int) -> None:
    planner, registry = Planner(), Registry()
    for host in HOSTS:
        planner.apply(NODES, "", host, view_of(NODES, a_node(host)))
        planner.set_online(host, True)
    realization = Realization("e", lambda scope: frozenset(planner.nodes))
    conditions = Conditions(registry, registry, planner, realization, SystemClock())
    verdicts: list[Verdict] = []
    judge = conditions.judge

    def counted(key: Key) -> Verdict:
        verdicts.append(judge(key))
        return verdicts[-1]

    conditions.judge = counted  # type: ignore[method-assign]
    registry.put(SERVICES, a_service("red", "web"))
    entry = registry.get(*KEY)
    assert entry is not None
    manifest = Manifest(epoch="e", revision=entry.revision, count=1, digest=b"d" * 16, changed_at=0.0)
    realization.note_pass(entry.revision, {CLUSTER: manifest})
    conditions.seen(SERVICES, entry.decode(), entry.revision, True)
    conditions.planned(())
    order = random.Random(seed).sample(HOSTS, len(HOSTS))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(conditions.run())
        for host in order:
            mark = Watermark(
                host=host,
                scope=CLUSTER.path,
                epoch="e",
                revision=manifest.revision,
                digest=manifest.digest,
                committed_at=1.0,
            )
            realization.confirm(host, CLUSTER, mark)
            conditions.reported(CLUSTER, False, host)
            for _ in range(4):
                await asyncio.sleep(0)
        while not registry.status_writes:  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)
        running.cancel()
    assert registry.status_writes[-1]["status"]["conditions"][0]["status"] == "True"
    assert len(verdicts) < 40, "each report was looked at"

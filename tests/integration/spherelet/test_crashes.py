"""spherelet dies at any step of create or delete; the next one finishes or removes what is half-made."""

import asyncio
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def world() -> Any:
    return sys.modules["world"]


def ready(host: Any, name: str) -> bool:
    conditions = host.api.status(name).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


@pytest.mark.parametrize("milliseconds", [2, 5, 10, 15, 20, 30, 40, 50])
async def test_death_during_create_then_run(host: Any, milliseconds: int) -> None:
    w = world()
    host.api.create(w.pod("cut", "sleep", "3600"))
    await asyncio.sleep(milliseconds / 1000)
    await host.stop()
    await host.start()
    await w.eventually(lambda: ready(host, "cut"), timeout_s=20)
    assert host.api.status("cut")["containerStatuses"][0]["restartCount"] == 0
    host.api.delete("cut", 1)
    await w.eventually(lambda: not host.loop.records and "cut" not in host.api.pods)
    assert w.census(host.directory, host.config.cgroup_parent) == []


@pytest.mark.parametrize("milliseconds", [3, 8, 15, 25, 35, 50])
async def test_death_during_create_then_gone(host: Any, milliseconds: int) -> None:
    w = world()
    pod = host.api.create(w.pod("cut", "sleep", "3600", terminationGracePeriodSeconds=0))
    await asyncio.sleep(milliseconds / 1000)
    await host.stop()
    host.api.put(pod, "DELETED")
    asked = any(each["op"] == "add" for each in host.agent.calls)
    await host.start()
    await w.eventually(lambda: host.loop.desired.in_sync and not host.loop.records, timeout_s=20)
    assert w.census(host.directory, host.config.cgroup_parent) == []
    if asked:
        assert host.agent.calls[-1]["op"] == "del"


@pytest.mark.parametrize("milliseconds", [2, 10, 20, 40])
async def test_death_during_delete(host: Any, milliseconds: int) -> None:
    w = world()
    host.api.create(w.pod("cut", "sleep", "3600"))
    await w.eventually(lambda: ready(host, "cut"))
    host.api.delete("cut", 0)
    await asyncio.sleep(milliseconds / 1000)
    await host.stop()
    await host.start()
    await w.eventually(lambda: "cut" not in host.api.pods and not host.loop.records, timeout_s=20)
    assert w.census(host.directory, host.config.cgroup_parent) == []

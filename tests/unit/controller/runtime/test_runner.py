"""The runner: gate, own writes, refusals, stale views."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from common.clock import SystemClock
from controller.api.status import ApiError, conflict
from controller.kinds.kind import Object, ResourceKey
from controller.runtime.events import Recorder
from controller.runtime.metrics import ControllerMetrics
from controller.runtime.reconciler import Map, own_key
from controller.runtime.resources import CONFIG_MAPS
from controller.runtime.runner import Runner
from controller.runtime.view import View
from controller.runtime.writes import NOTHING_TO_DO, Create, Plan
from tests.support.model_registry import ModelRegistry


class Cache(ModelRegistry):
    """A model registry that can lag behind and be out of sync."""

    def __init__(self) -> None:
        super().__init__()
        self.synced = asyncio.Event()
        self.visible = asyncio.Event()
        self.waited: list[int] = []

    def resources(self) -> Mapping[ResourceKey, int]:
        return {CONFIG_MAPS: 0}

    async def wait_synced(self) -> None:
        await self.synced.wait()

    async def wait_revision(self, revision: int) -> None:
        self.waited.append(revision)
        await self.visible.wait()


class Client:
    """Creates in the registry, after failing with ``errors``."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.errors: list[ApiError] = []
        self.created = 0

    async def create(self, resource: ResourceKey, obj: Object) -> Object:
        if self.errors:
            raise self.errors.pop(0)
        self.created += 1
        return self.cache.put(resource, obj)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not expected")


class Pair:
    """Wants a second ConfigMap beside every first one."""

    name = "pair"
    watches: Mapping[ResourceKey, Map] = {CONFIG_MAPS: own_key}

    def __init__(self) -> None:
        self.plans = 0
        self.failures: list[str] = []

    def plan(self, view: View, key: str, now: float) -> Plan:
        self.plans += 1
        failure = view.failure(self.name, key)
        if failure is not None:
            self.failures.append(failure.message)
        if key != "d/first" or view.entry(CONFIG_MAPS, "d", "second") is not None:
            return NOTHING_TO_DO
        return Plan((Create(CONFIG_MAPS, config_map("second")),))


def config_map(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "d"}}


class World:
    def __init__(self) -> None:
        self.cache = Cache()
        self.client: Any = Client(self.cache)
        self.pair = Pair()
        clock = SystemClock()
        metrics = ControllerMetrics(CollectorRegistry())
        recorder = Recorder(self.client, self.cache.view, clock, metrics)
        self.runner = Runner(
            self.pair, self.cache, self.cache.view, self.client, recorder, clock, lambda: self.cache.revision, metrics
        )

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110 - what() looks at memory that another task changes
                await asyncio.sleep(0.005)


async def running(world: World, *steps: Any) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(world.runner.run())
        for step in steps:
            await step()
        task.cancel()


async def test_nothing_happens_before_the_cache_is_in_sync() -> None:
    world = World()
    world.cache.visible.set()
    world.cache.put(CONFIG_MAPS, config_map("first"))

    async def early() -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.pair.plans == 0
        world.cache.synced.set()
        await world.until(lambda: world.client.created)

    await running(world, early)


async def test_a_key_is_not_planned_again_before_its_own_writes_are_seen() -> None:
    world = World()
    world.cache.synced.set()
    world.cache.put(CONFIG_MAPS, config_map("first"))

    async def step() -> None:
        await world.until(lambda: world.client.created)
        plans = world.pair.plans
        world.cache.put(CONFIG_MAPS, {**config_map("first"), "data": {"a": "b"}})
        await world.until(lambda: world.cache.waited)
        for _ in range(20):
            await asyncio.sleep(0)
        assert world.cache.waited[-1] >= 2
        world.cache.visible.set()
        await world.until(lambda: world.pair.plans > plans)

    await running(world, step)
    assert world.client.created == 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        pytest.param(conflict(CONFIG_MAPS, "second"), [], id="stale: just again"),
        pytest.param(ApiError(403, "Forbidden", "quota"), ["quota"], id="refused: the next plan knows"),
    ],
)
async def test_failed_writes_are_planned_again(error: ApiError, shown: list[str]) -> None:
    world = World()
    world.cache.synced.set()
    world.cache.visible.set()
    world.client.errors = [error]
    world.cache.put(CONFIG_MAPS, config_map("first"))

    async def step() -> None:
        await world.until(lambda: world.client.created)

    await running(world, step)
    assert world.pair.failures == shown
    assert world.client.created == 1


async def test_a_plan_that_fails_stays_with_its_key() -> None:
    world = World()
    world.cache.synced.set()
    world.cache.visible.set()
    world.cache.put(CONFIG_MAPS, config_map("first"))
    world.cache.put(CONFIG_MAPS, config_map("poison"))
    plan = world.pair.plan

    def poisoned(view: View, key: str, now: float) -> Plan:
        if key == "d/poison":
            raise ValueError("cannot be read")
        return plan(view, key, now)

    world.pair.plan = poisoned  # type: ignore[method-assign]

    async def step() -> None:
        await world.until(lambda: world.client.created)

    await running(world, step)
    assert world.client.created == 1

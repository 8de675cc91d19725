"""One suite for the real etcd and the fake: what store and cache rely on."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from common.clock import SystemClock
from controller.store.cache import wait_for_etcd
from controller.store.etcd import Compacted, Etcd, Kv, Unavailable, prefix_end
from controller.store.objects import Compare, Conflict, Delete, Put, Store
from controller.store.proto import etcd_pb2 as pb
from tests.sim.fakes.etcd import EtcdClient, EtcdOptions, EtcdServer
from tests.support.etcd_process import EtcdProcess
from tests.support.pki import TestCa

pytestmark = pytest.mark.integration
START, END = b"/t/", prefix_end(b"/t/")


class World(Protocol):
    client: Kv

    def stop(self) -> None: ...

    def start(self) -> None: ...


class Real:
    def __init__(self, process: EtcdProcess, client: Etcd) -> None:
        self.client = client
        self.stop, self.start = process.kill, process.start


class Fake:
    def __init__(self) -> None:
        self.server = EtcdServer()
        self.client = EtcdClient(self.server, SystemClock(), random.Random(0), EtcdOptions())
        self.stop, self.start = self.server.stop, self.server.start


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    folder: Path = tmp_path_factory.mktemp("etcd")
    running = EtcdProcess(folder, TestCa.create(folder).issue("etcd"))
    running.start()
    yield running
    running.kill()


@pytest.fixture(params=["etcd", "fake"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    if request.param == "fake":
        yield Fake()
        return
    running: EtcdProcess = request.getfixturevalue("process")
    client = Etcd([running.endpoint], running.tls)
    await wait_for_etcd(client, SystemClock())
    for kv in (await client.range(START, END)).kvs:
        await client.txn(pb.TxnRequest(success=[_delete(kv.key)]))
    yield Real(running, client)
    await client.close()


def _delete(key: bytes) -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))


def store(world: World) -> Store:
    return Store(world.client, SystemClock(), lambda seconds: None)


async def collect(world: World, since: int, count: int) -> list[tuple[int, str, bytes, int]]:
    """The first ``count`` events from revision ``since`` on: type, key, value, revision."""
    found: list[tuple[int, str, bytes, int]] = []
    async with asyncio.timeout(10):
        async for response in world.client.watch(START, END, since):
            assert response.header.revision >= max((each[3] for each in found), default=0)
            found += [(e.type, e.kv.key.decode(), e.kv.value, e.kv.mod_revision) for e in response.events]
            if len(found) >= count:
                break
    return found


async def test_a_transaction_is_one_revision_and_all_or_nothing(world: World) -> None:
    first = await store(world).txn([Compare("/t/a", 0)], [Put("/t/a", b"1"), Put("/t/b", b"1")])
    second = await store(world).txn([Compare("/t/a", first)], [Put("/t/a", b"2"), Delete("/t/b")])
    assert second == first + 1
    with pytest.raises(Conflict) as caught:
        await store(world).txn([Compare("/t/a", second), Compare("/t/b", first)], [Put("/t/c", b"1")])
    assert (caught.value.key, caught.value.revision) == ("/t/b", 0)
    with pytest.raises(Conflict) as caught:
        await store(world).txn([Compare("/t/a", 0)], [Put("/t/c", b"1")])
    assert (caught.value.key, caught.value.revision) == ("/t/a", second)
    found = await world.client.range(START, END)
    assert [(kv.key, kv.value, kv.mod_revision, kv.version) for kv in found.kvs] == [(b"/t/a", b"2", second, 2)]
    assert found.kvs[0].create_revision == first
    assert found.header.revision == second


async def test_deleting_nothing_is_no_revision(world: World) -> None:
    revision = await store(world).txn([], [Put("/t/a", b"1")])
    assert await store(world).txn([], [Delete("/t/none")]) == revision


async def test_pages_show_one_revision(world: World) -> None:
    for name in "abcde":
        revision = await store(world).txn([], [Put(f"/t/{name}", name.encode())])
    page = await world.client.range(START, END, limit=2)
    assert ([kv.key for kv in page.kvs], page.more) == ([b"/t/a", b"/t/b"], True)
    await store(world).txn([], [Put("/t/c", b"late"), Delete("/t/e"), Put("/t/f", b"f")])
    rest = await world.client.range(page.kvs[-1].key + b"\0", END, limit=9, revision=page.header.revision)
    assert ([kv.value for kv in rest.kvs], rest.more) == ([b"c", b"d", b"e"], False)
    assert page.header.revision == revision


async def test_a_watch_tells_everything_since_a_revision_in_order(world: World) -> None:
    first = await store(world).txn([], [Put("/t/a", b"1"), Put("/t/b", b"1")])
    await store(world).txn([], [Put("/u/a", b"not ours")])
    third = await store(world).txn([], [Delete("/t/a"), Put("/t/b", b"2")])

    async def write_later() -> None:
        await asyncio.sleep(0.1)
        await store(world).txn([], [Put("/t/c", b"3")])

    async with asyncio.TaskGroup() as group:
        group.create_task(write_later())
        found = await collect(world, first, 5)
    put, gone = pb.Event.PUT, pb.Event.DELETE
    assert found[:2] == [(put, "/t/a", b"1", first), (put, "/t/b", b"1", first)]
    assert sorted(found[2:4]) == [(put, "/t/b", b"2", third), (gone, "/t/a", b"", third)]
    assert found[4] == (put, "/t/c", b"3", third + 1)


async def test_history_ends_at_a_compaction(world: World) -> None:
    first = await store(world).txn([], [Put("/t/a", b"1")])
    second = await store(world).txn([], [Put("/t/a", b"2")])
    third = await store(world).txn([], [Put("/t/a", b"3")])
    await world.client.compact(second)
    with pytest.raises(Compacted):
        await world.client.compact(second)
    with pytest.raises(Compacted):
        await world.client.range(START, END, revision=first)
    assert (await world.client.range(b"/t/a", revision=second)).kvs[0].value == b"2"
    with pytest.raises(Compacted):
        await collect(world, first, 1)
    assert [each[3] for each in await collect(world, second, 2)] == [second, third]
    with pytest.raises(Unavailable):
        await world.client.compact(third + 100)


async def test_while_it_is_away_everything_fails_and_watches_end(world: World) -> None:
    revision = await store(world).txn([], [Put("/t/a", b"1")])

    async def stop_soon() -> None:
        await asyncio.sleep(0.2)
        world.stop()

    async with asyncio.TaskGroup() as group:
        group.create_task(stop_soon())
        with pytest.raises(Unavailable):
            await collect(world, revision + 1, 1)
    with pytest.raises(Unavailable):
        await store(world).txn([], [Put("/t/a", b"2")])
    with pytest.raises(Unavailable):
        await world.client.range(START, END)
    world.start()
    await wait_for_etcd(world.client, SystemClock())
    found = await world.client.range(START, END)
    assert [(kv.value, kv.mod_revision) for kv in found.kvs] == [(b"1", revision)]

"""Watches, pages and consistency over real HTTP on a real etcd."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from common.tls import client_context
from tests.integration.conftest import ApiServer
from tests.support.etcd_process import EtcdProcess

pytestmark = pytest.mark.integration
PATH = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def http(api_server: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    context: ssl.SSLContext = client_context(api_server.admin)
    async with aiohttp.ClientSession(api_server.url, connector=aiohttp.TCPConnector(ssl=context, limit=0)) as session:
        yield session


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}}


async def create(http: aiohttp.ClientSession, name: str, **labels: str) -> dict[str, Any]:
    async with http.post(PATH, json=config_map(name, **labels)) as response:
        assert response.status == 201, await response.text()
        made: dict[str, Any] = await response.json()
        return made


async def events(response: aiohttp.ClientResponse, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The next ``count`` events."""
    found = []
    async with asyncio.timeout(10):
        while len(found) < count:
            event = json.loads(await response.content.readline())
            found.append((event["type"], event["object"]))
    return found


async def test_leaving_the_selector_is_a_deletion(http: aiohttp.ClientSession) -> None:
    made = await create(http, "a", app="x")
    query = {"watch": "1", "labelSelector": "app=x", "resourceVersion": made["metadata"]["resourceVersion"]}
    async with http.get(PATH, params=query) as response:
        patch = {"metadata": {"labels": {"app": "y"}}}
        headers = {"Content-Type": "application/merge-patch+json"}
        async with http.patch(f"{PATH}/a", json=patch, headers=headers) as patched:
            after = await patched.json()
        await create(http, "b", app="x")
        [(first, gone), (second, new)] = await events(response, 2)
    assert (first, second) == ("DELETED", "ADDED")
    assert gone["metadata"]["labels"] == {"app": "x"}
    assert gone["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
    assert new["metadata"]["name"] == "b"


async def test_initial_events_end_in_a_marked_bookmark(http: aiohttp.ClientSession) -> None:
    await create(http, "a")
    query = {"watch": "1", "sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    query |= {"allowWatchBookmarks": "true", "fieldSelector": "metadata.name=a"}
    async with http.get(PATH, params=query) as response:
        [(first, _), (second, mark)] = await events(response, 2)
    assert (first, second) == ("ADDED", "BOOKMARK")
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_pages_show_one_moment(http: aiohttp.ClientSession) -> None:
    for index in range(5):
        await create(http, f"c{index}", page="yes")
    query = {"limit": "2", "labelSelector": "page=yes"}
    names, token, versions = [], "", set()
    while True:
        async with http.get(PATH, params=query | ({"continue": token} if token else {})) as response:
            page = await response.json()
        names += [item["metadata"]["name"] for item in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
        await create(http, f"c9{len(names)}", page="yes")
        await http.delete(f"{PATH}/c4")
    assert names == [f"c{index}" for index in range(5)]
    assert len(versions) == 1


async def test_concurrent_updates_lose_nothing(http: aiohttp.ClientSession) -> None:
    await create(http, "count")
    headers = {"Content-Type": "application/merge-patch+json"}

    async def add(key: int) -> None:
        async with http.patch(f"{PATH}/count", json={"data": {f"k{key}": "v"}}, headers=headers) as response:
            assert response.status == 200, await response.text()

    async with asyncio.TaskGroup() as group:
        for key in range(6):
            group.create_task(add(key))
    async with http.get(f"{PATH}/count") as response:
        assert len((await response.json())["data"]) == 6


async def test_a_stale_update_conflicts(http: aiohttp.ClientSession) -> None:
    made = await create(http, "stale")
    async with http.put(f"{PATH}/stale", json=made | {"data": {"a": "1"}}) as response:
        assert response.status == 200
    async with http.put(f"{PATH}/stale", json=made | {"data": {"a": "2"}}) as response:
        assert response.status == 409
        status = await response.json()
    assert status["message"] == (
        'Operation cannot be fulfilled on configmaps "stale": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )


async def test_etcd_away_and_back(http: aiohttp.ClientSession, etcd: EtcdProcess) -> None:
    made = await create(http, "before")
    query = {"watch": "1", "resourceVersion": made["metadata"]["resourceVersion"]}
    async with http.get(PATH, params=query) as response:
        etcd.kill()
        async with http.post(PATH, json=config_map("during")) as refused:
            assert refused.status in (500, 503)
            assert (await refused.json())["reason"] in ("ServiceUnavailable", "InternalError")
        async with http.get("/readyz") as ready:
            assert ready.status == 500
        async with http.get("/livez") as live:
            assert live.status == 200
        etcd.start()
        async with asyncio.timeout(20):
            while True:
                async with http.post(PATH, json=config_map("after")) as again:
                    if again.status in (201, 409):
                        break
                await asyncio.sleep(0.1)
        [(kind, obj)] = await events(response, 1)
    assert (kind, obj["metadata"]["name"]) in (("ADDED", "after"), ("ADDED", "during"))


async def test_bad_requests_get_proper_answers(http: aiohttp.ClientSession) -> None:
    cases = [
        ("POST", PATH, b"{", "application/json", 400),
        ("POST", PATH, b"x" * (4 << 20), "application/json", 413),
        ("POST", PATH, b"<a/>", "text/xml", 415),
        ("POST", PATH, b"k8s\x00junk", "application/vnd.kubernetes.protobuf", 400),
        ("POST", PATH, b'{"kind":"Pod","apiVersion":"v1"}', "application/json", 400),
        ("POST", PATH, b'{"metadata":{"name":"UPPER"}}', "application/json", 422),
        ("POST", PATH, b'{"metadata":[]}', "application/json", 400),
        ("POST", PATH, b'{"metadata":{"name":"x"},"data":{"a":1}}', "application/json", 400),
        ("POST", "/api/v1/namespaces/none/configmaps", b'{"metadata":{"name":"x"}}', "application/json", 404),
        ("PATCH", f"{PATH}/none", b"{}", "application/merge-patch+json", 404),
        ("PATCH", f"{PATH}/none", b"{}", "application/json", 415),
        ("GET", f"{PATH}?labelSelector=a%20in%20(", b"", "", 400),
        ("GET", f"{PATH}?fieldSelector=foo%3Dbar", b"", "", 400),
        ("GET", f"{PATH}?continue=zzz", b"", "", 400),
        ("GET", f"{PATH}?limit=x", b"", "", 400),
        ("GET", f"{PATH}?resourceVersion=x", b"", "", 400),
        ("GET", f"{PATH}?watch=1&timeoutSeconds=x", b"", "", 400),
        ("GET", "/apis/none/v1/things", b"", "", 404),
        ("GET", "/nothing", b"", "", 404),
        ("PUT", PATH, b"{}", "application/json", 405),
        ("DELETE", f"{PATH}/none", b"[1]", "application/json", 400),
    ]
    for method, path, body, content, code in cases:
        async with http.request(method, path, data=body or None, headers={"Content-Type": content}) as response:
            status = await response.json()
            assert response.status == code, (method, path, status)
            assert status["kind"] == "Status"
            assert status["code"] == code


async def test_a_page_of_a_forgotten_state_can_be_gone_on_from(
    http: aiohttp.ClientSession, api_server: ApiServer
) -> None:
    for index in range(3):
        await create(http, f"p{index}", paged="yes")
    query = {"limit": "1", "labelSelector": "paged=yes"}
    async with http.get(PATH, params=query) as response:
        first = await response.json()
    await create(http, "p3", paged="yes")
    api_server.api.ports.cache.compacted = int(first["metadata"]["resourceVersion"]) + 1
    async with http.get(PATH, params=query | {"continue": first["metadata"]["continue"]}) as response:
        status = await response.json()
        assert (response.status, status["reason"]) == (410, "Expired")
    token = status["metadata"]["continue"]
    async with http.get(PATH, params=query | {"continue": token, "limit": "9"}) as response:
        rest = await response.json()
    assert [item["metadata"]["name"] for item in rest["items"]] == ["p1", "p2", "p3"]


async def test_a_stale_uid_conflicts(http: aiohttp.ClientSession) -> None:
    made = await create(http, "namesake")
    made["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111"
    del made["metadata"]["resourceVersion"]
    async with http.put(f"{PATH}/namesake", json=made) as response:
        assert response.status == 409
        assert "UID in precondition" in (await response.json())["message"]

"""The whole of spherelet over a fake API: real containerd, conmon and crun, its own server and clients."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from common.tls import client_context
from spherelet.__main__ import run
from spherelet.config import Server
from spherelet.server.remotecommand import V5
from tests.support.mosquitto import Authority, free_port

pytestmark = pytest.mark.integration

Object = dict[str, Any]


class Objects:
    """Nodes, leases, services, ConfigMaps and tokens beside the pods of the shared fake."""

    def __init__(self) -> None:
        self.node: Object = {}
        self.lease: Object = {}
        self.watching = 0
        """Watches of the ConfigMap that were ever opened."""
        self._watches: list[asyncio.Queue[Object]] = []
        self.config_map: Object = {"metadata": {"name": "cfg", "namespace": "default"}, "data": {"greeting": "hello"}}

    def routes(self, app: web.Application) -> None:
        app.router.add_get("/api/v1/nodes/{name}", self._get_node)
        app.router.add_post("/api/v1/nodes", self._create_node)
        app.router.add_patch("/api/v1/nodes/{name}/status", self._node_status)
        app.router.add_patch("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}", self._renew)
        app.router.add_post("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", self._create_lease)
        app.router.add_get("/api/v1/services", self._list)
        app.router.add_get("/api/v1/namespaces/default/configmaps", self._list)

    async def _get_node(self, request: web.Request) -> web.Response:
        return web.json_response(self.node or {"code": 404}, status=200 if self.node else 404)

    async def _create_node(self, request: web.Request) -> web.Response:
        self.node = await request.json()
        self.node["metadata"]["uid"] = "node-uid"
        return web.json_response(self.node, status=201)

    async def _node_status(self, request: web.Request) -> web.Response:
        self.node |= await request.json()
        return web.json_response(self.node)

    async def _renew(self, request: web.Request) -> web.Response:
        if self.lease:
            self.lease |= await request.json()
        return web.json_response(self.lease or {"code": 404}, status=200 if self.lease else 404)

    async def _create_lease(self, request: web.Request) -> web.Response:
        self.lease = await request.json()
        return web.json_response(self.lease, status=201)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            items = [self.config_map] if request.path.endswith("configmaps") else []
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})
        answer = web.StreamResponse()
        await answer.prepare(request)
        events: asyncio.Queue[Object] = asyncio.Queue()
        if request.path.endswith("configmaps"):
            self.watching += 1
            self._watches.append(events)
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while True:
                await answer.write(json.dumps(await events.get()).encode() + b"\n")
        return answer

    def change(self, greeting: str) -> None:
        """A new value in the ConfigMap, told to its watches."""
        meta = {**self.config_map["metadata"], "resourceVersion": "2"}
        self.config_map = {"metadata": meta, "data": {"greeting": greeting}}
        for events in self._watches:
            events.put_nowait({"type": "MODIFIED", "object": self.config_map})

    def condition(self, kind: str) -> Object:
        found = (self.node.get("status") or {}).get("conditions") or ()
        return next((each for each in found if each["type"] == kind), {})


@contextlib.asynccontextmanager
async def objects_api(objects: Objects, pods_url: str) -> Any:
    """One URL for both fakes: what is not in ``objects`` goes on to the pods' fake."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:

        async def pass_on(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"Content-Type": request.headers.get("Content-Type", "application/json")}
            async with session.request(
                request.method, pods_url + request.path_qs, data=body or None, headers=headers
            ) as inner:
                answer = web.StreamResponse(status=inner.status)
                await answer.prepare(request)
                with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                    async for piece in inner.content.iter_any():
                        await answer.write(piece)
                return answer

        app = web.Application()
        objects.routes(app)
        app.router.add_route("*", "/{tail:.*}", pass_on)
        runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def test_node_pod_logs_exec_and_failing_agent(containerd: Path, tmp_path: Path) -> None:
    world: Any = sys.modules["world"]
    directory = world.scratch()
    authority = Authority(tmp_path)
    objects = Objects()
    agent = world.FakeNetworkAgent(directory / "nsx.sock")
    async with (
        world.FakeApi().serve() as api,
        objects_api(objects, api.url) as url,
        agent.serve(),
        asyncio.TaskGroup() as group,
    ):
        port = free_port()
        server = Server(listen=f"127.0.0.1:{port}", tls=authority.identity("system-node-thost"))
        config = msgspec.structs.replace(world.config(directory, url, containerd), server=server)
        task = group.create_task(run(config))
        try:
            await world.eventually(lambda: objects.condition("Ready").get("status") == "True", what=str(objects.node))
            assert objects.node["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://1.")
            await world.eventually(lambda: objects.lease.get("spec", {}).get("holderIdentity") == "thost")
            assert [each["uid"] for each in objects.lease["metadata"]["ownerReferences"]] == ["node-uid"]
            await run_a_pod(world, api, authority, port)
            before = len(api.status_writes["web"])
            task.cancel()
            await asyncio.wait([task])
            task = group.create_task(run(config))
            await world.eventually(lambda: objects.watching > 1, what="the new spherelet follows the ConfigMap")
            objects.change("hello again")
            await exec_until(authority, port, b"hello again")
            for status in api.status_writes["web"][before:]:
                ready = [each["status"] for each in status["conditions"] if each["type"] == "Ready"]
                assert ready in ([], ["True"]), "a restart makes nobody unready"
            agent.refuse = "the broker is away"
            ready = await world.eventually(
                lambda: objects.condition("Ready").get("status") == "False" and objects.condition("Ready")
            )
            assert "the broker is away" in ready["message"]
            agent.refuse = ""
            await world.eventually(lambda: objects.condition("Ready").get("status") == "True")
            api.delete("web", grace_s=1)
            await world.eventually(lambda: "web" not in api.pods)
            await world.eventually(lambda: not list((directory / "state" / "pods").iterdir()))
            assert world.census(directory, config.cgroup_parent) == []
        finally:
            task.cancel()
            await asyncio.wait([task])
            world.sweep(directory, config.cgroup_parent)


async def exec_until(authority: Authority, port: int, text: bytes) -> None:
    """Read the pod's ConfigMap volume by exec until it says ``text``."""
    connector = aiohttp.TCPConnector(ssl=client_context(authority.identity("sphere-controller")))
    path = f"https://127.0.0.1:{port}/exec/default/web/main?command=cat&command=/config/greeting&stdout=1"
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.timeout(20):
        while True:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.ws_connect(path, protocols=(V5,)) as websocket:
                    if b"\1" + text in [message.data async for message in websocket]:
                        return
            await asyncio.sleep(0.05)


async def run_a_pod(world: Any, api: Any, authority: Authority, port: int) -> None:
    """A pod with a ConfigMap volume, environment and probes becomes ready; its logs and exec work."""
    script = "cat /config/greeting; echo; echo $GREETING; touch /ok; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    container = {
        "env": [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "greeting"}}}],
        "volumeMounts": [{"name": "config", "mountPath": "/config"}],
        "readinessProbe": {"exec": {"command": ["cat", "/ok"]}, "periodSeconds": 1},
    }
    volumes = [{"name": "config", "configMap": {"name": "cfg"}}]
    api.create(world.pod("web", "sh", "-c", script, container=container, volumes=volumes))

    def is_ready() -> bool:
        conditions = api.status("web").get("conditions") or ()
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    await world.eventually(is_ready, what="pod Ready")
    connector = aiohttp.TCPConnector(ssl=client_context(authority.identity("sphere-controller")))
    async with aiohttp.ClientSession(connector=connector) as session:
        base = f"https://127.0.0.1:{port}"
        async with session.get(f"{base}/containerLogs/default/web/main") as answer:
            assert await answer.text() == "hello\nhello\n"
        path = f"{base}/exec/default/web/main?command=cat&command=/config/greeting&stdout=1"
        async with session.ws_connect(path, protocols=(V5,)) as websocket:
            messages = [message.data async for message in websocket]
        assert b"\1hello" in messages
        assert json.loads(messages[-1][1:])["status"] == "Success"
        async with session.get(f"{base}/stats/summary") as answer:
            pods = (await answer.json())["pods"]
            assert pods[0]["containers"][0]["memory"]["workingSetBytes"] > 0
        async with session.get(f"{base}/metrics") as answer:
            assert "spherelet_running_pods 1.0" in await answer.text()

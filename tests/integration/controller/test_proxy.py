"""The API's proxy to pods and services: HTTP through the host of the pod, whatever method, and back."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from common.settings import TlsFiles
from common.tls import client_context, server_context
from controller.api import proxy
from controller.api.spherelets import Spherelets
from spherelet.model import ContainerState
from tests.integration.conftest import ApiServer
from tests.support.pki import TestCa
from tests.support.spherelet_server import OnePod
from tests.support.spherelet_server import serving as serving_spherelet

pytestmark = pytest.mark.integration
PAGE = '<html><a href="/next">on</a> &amp <script>go("<a href=/next>")</script></html>'


@dataclass
class Site:
    """A pod's server, plain and with TLS, and a client of the API."""

    session: aiohttp.ClientSession
    url: str
    port: int
    tls_port: int

    def path(self, what: str) -> str:
        return f"{self.url}/api/v1/namespaces/shop/{what}"


async def handle(request: web.BaseRequest) -> web.StreamResponse:
    """Echoes; ``/page`` is HTML, ``/redirect`` leads to it, ``/socket`` is a WebSocket."""
    request_path = request.rel_url.raw_path
    if request_path == "/page":
        return web.Response(text=PAGE, content_type="text/html", headers={"Set-Cookie": "a=b"})
    if request_path == "/redirect":
        return web.Response(status=302, headers={"Location": f"http://{request.host}/page?x=1"})
    if request_path == "/socket":
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        async for message in websocket:
            await websocket.send_str(f"{message.data}!")
        return websocket
    body = await request.content.read()
    answer = {"method": request.method, "path": request.raw_path, "body": len(body), "secure": request.secure}
    return web.json_response(
        {**answer, "headers": dict(request.headers)}, status=418 if "teapot" in request_path else 200
    )


@contextlib.asynccontextmanager
async def pod_server(ca: TestCa) -> AsyncIterator[tuple[int, int]]:
    runner = web.ServerRunner(web.Server(handle), handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    context = server_context(ca.issue("pod"), client_certificate=False)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield runner.addresses[0][1], runner.addresses[1][1]
    finally:
        await runner.cleanup()


def objects(host_port: int, port: int, tls_port: int) -> list[tuple[str, str, dict[str, object], dict[str, object]]]:
    """Path of a collection, name, object, its status."""
    ports = [{"name": "web", "port": 80, "targetPort": port}, {"name": "tls", "port": 443, "targetPort": tls_port}]
    container = {"name": "main", "image": "busybox", "ports": [{"containerPort": port}]}
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    node_status: dict[str, object] = {
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": host_port}},
    }
    no_status: dict[str, object] = {}
    endpoint = {"addresses": ["10.64.0.9"], "nodeName": "host-1", "targetRef": {"kind": "Pod", "name": "web"}}
    pod_spec = {"nodeName": "host-1", "containers": [container]}
    shop = "/api/v1/namespaces/shop"
    return [
        ("/api/v1/namespaces", "shop", {"kind": "Namespace", "metadata": {"name": "shop"}}, {}),
        (f"{shop}/serviceaccounts", "default", {"kind": "ServiceAccount", "metadata": {"name": "default"}}, {}),
        ("/api/v1/nodes", "host-1", {"kind": "Node", "metadata": {"name": "host-1"}}, node_status),
        (
            f"{shop}/pods",
            "web",
            {"kind": "Pod", "metadata": {"name": "web"}, "spec": pod_spec},
            {"phase": "Running", "podIP": "10.64.0.9"},
        ),
        (f"{shop}/services", "site", {"kind": "Service", "metadata": {"name": "site"}, "spec": {"ports": ports}}, {}),
        (
            f"{shop}/services",
            "by-hand",
            {"kind": "Service", "metadata": {"name": "by-hand"}, "spec": {"ports": ports}},
            {},
        ),
        (f"{shop}/services", "empty", {"kind": "Service", "metadata": {"name": "empty"}, "spec": {"ports": ports}}, {}),
        *(
            (
                "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
                f"{service}-1",
                {
                    "kind": "EndpointSlice",
                    "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
                    "addressType": "IPv4",
                    "endpoints": [each],
                    "ports": [{"name": "web", "port": port}, {"name": "tls", "port": tls_port}],
                },
                no_status,
            )
            for service, each in (("site", endpoint), ("by-hand", {"addresses": endpoint["addresses"]}))
        ),
    ]


@contextlib.asynccontextmanager
async def site(folder: Path, server: ApiServer) -> AsyncIterator[Site]:
    hosts, pods = folder / "hosts", folder / "pods"
    hosts.mkdir()
    pods.mkdir()
    state = ContainerState("uid-1", "main", 0, "0" * 64, hosts, "busybox", "busybox", "crun", 1.0, started_at=1.0)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=client_context(server.admin)), headers={"Authorization": "Bearer secret"}
    )
    async with (
        session,
        pod_server(TestCa.create(pods)) as (port, tls_port),
        serving_spherelet(hosts, OnePod(state, {})) as host,
    ):
        own = TlsFiles(ca=hosts / "ca.crt", cert=hosts / "sphere-controller.crt", key=hosts / "sphere-controller.key")
        spherelets = Spherelets(server.api.ports.cache, client_context(own))
        proxy.install(server.api.routes, spherelets)
        host_port = int(host.base.rpartition(":")[2])
        for path, name, body, status in objects(host_port, port, tls_port):
            async with session.post(server.url + path, json=body) as made:
                assert made.status == 201, await made.text()
            if status:
                one = f"{server.url}{path}/{name}/status"
                kind = "application/merge-patch+json"
                data = json.dumps({"status": status})
                async with session.patch(one, data=data, headers={"Content-Type": kind}) as patched:
                    assert patched.status == 200, await patched.text()
        yield Site(session, server.url, port, tls_port)
        await spherelets.close()


async def test_every_method_arrives_with_its_path_query_and_body(tmp_path: Path, api_server: ApiServer) -> None:
    async with site(tmp_path, api_server) as here:
        for what in (
            "pods/web",
            f"pods/web:{here.port}",
            "services/site:web",
            "services/http:site:80",
            "services/by-hand:web",
        ):
            for method in ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"):
                target = here.path(f"{what}/proxy/some%2Fpath//with/?a=b%20c&a=d")
                body = b"x" * 5_000_000 if method == "PUT" else None
                async with here.session.request(method, target, data=body) as answer:
                    assert answer.status == 200, await answer.text()
                    if method == "HEAD":
                        assert await answer.read() == b""
                        continue
                    got = await answer.json()
                assert (got["method"], got["path"]) == (method, "/some%2Fpath//with/?a=b%20c&a=d")
                assert got["body"] == len(body or b"")


async def test_credentials_stay_with_the_api(tmp_path: Path, api_server: ApiServer) -> None:
    async with site(tmp_path, api_server) as here:
        sent = {"X-Own": "kept", "Cookie": "a=b", "Impersonate-User": "admin", "Impersonate-Group": "system:masters"}
        async with here.session.get(here.path("pods/web/proxy/"), headers=sent) as answer:
            got = {name.lower(): value for name, value in (await answer.json())["headers"].items()}
    assert (got["x-own"], got["cookie"]) == ("kept", "a=b")
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert not {"authorization", "impersonate-user", "impersonate-group", "accept-encoding"} & got.keys()


async def test_tls_to_the_pod_and_answers_as_they_are(tmp_path: Path, api_server: ApiServer) -> None:
    async with site(tmp_path, api_server) as here:
        for what in (f"pods/https:web:{here.tls_port}", "services/https:site:tls", "services/https:site:443"):
            async with here.session.get(here.path(f"{what}/proxy/teapot")) as answer:
                assert answer.status == 418
                assert (await answer.json())["secure"] is True


async def test_links_and_redirects_lead_through_the_proxy(tmp_path: Path, api_server: ApiServer) -> None:
    async with site(tmp_path, api_server) as here:
        prefix = "/api/v1/namespaces/shop/services/site:web/proxy"
        async with here.session.get(here.path("services/site:web/proxy"), allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (301, f"{prefix}/")
        async with here.session.post(here.path("services/site:web/proxy?x=1")) as answer:
            assert (await answer.json())["path"] == "/?x=1"
        async with here.session.get(here.path("services/site:web/proxy/redirect")) as answer:
            assert answer.url.path == f"{prefix}/page"
            assert answer.headers["Set-Cookie"] == "a=b"
            assert await answer.text() == PAGE.replace('"/next"', f'"{prefix}/next"')


async def test_websockets_pass(tmp_path: Path, api_server: ApiServer) -> None:
    async with (
        site(tmp_path, api_server) as here,
        asyncio.timeout(20),
        here.session.ws_connect(here.path("pods/web/proxy/socket")) as websocket,
    ):
        for text in ("a", "b" * 100_000):
            await websocket.send_str(text)
            assert await websocket.receive_str() == f"{text}!"


async def test_what_cannot_be_reached_is_said(tmp_path: Path, api_server: ApiServer) -> None:
    async with site(tmp_path, api_server) as here:
        for what, code, words in (
            ("pods/nobody", 404, 'pods "nobody" not found'),
            ("pods/ftp:web:1", 400, "invalid pod request"),
            ("pods/web:http", 400, 'invalid port "http"'),
            ("pods/web:1", 503, "failed to connect to localhost:1 inside the pod: Connection refused"),
            ("services/nobody", 404, 'services "nobody" not found'),
            ("services/site", 503, 'no endpoints available for service "site"'),
            ("services/site:81", 503, 'no service port 81 found for service "site"'),
            ("services/empty:web", 503, 'no endpoints available for service "empty"'),
        ):
            async with here.session.get(here.path(f"{what}/proxy/")) as answer:
                got = await answer.json()
                assert (got["kind"], answer.status) == ("Status", code), got
                assert words in got["message"]
                assert "Retry-After" not in answer.headers, "clients would try again for a while"


async def test_discovery_names_the_options_of_proxies(api_server: ApiServer) -> None:
    listed = json.loads(await api_server.kubectl("get", "--raw", "/api/v1"))["resources"]
    found = {each["name"]: each["kind"] for each in listed if each["name"].endswith("/proxy")}
    assert found == {
        "nodes/proxy": "NodeProxyOptions",
        "pods/proxy": "PodProxyOptions",
        "services/proxy": "ServiceProxyOptions",
    }

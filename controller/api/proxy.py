"""``pods/proxy`` and ``services/proxy``: HTTP of clients handed on to what runs in the cluster, any method.

Spec: apimachinery ``util/proxy.UpgradeAwareHandler``. The client's credentials stay here; bodies are streamed both
ways; links of pages lead through the proxy again (``links.py``). Connections are made per request: a client may have a
pod's server to itself, and an answer never comes from a pod that had the address before.
"""

import asyncio
import random
import re
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from common import upgrade
from controller.api.api import Call, Routes
from controller.api.links import rewrite_link, rewrite_page
from controller.api.pod_tunnel import TunnelBroken, through
from controller.api.proxy_target import (
    Asked,
    Place,
    asked_of,
    direct,
    place_of_pod,
    places_of_service,
    subpath_of,
    unreachable,
)
from controller.api.request import Answer, Reply
from controller.api.spherelets import CONNECT_TIMEOUT_S, UPGRADE_TIMEOUT_S, Spherelets
from controller.api.status import not_found
from controller.api.streams import PODS, relay_bytes
from controller.kinds.kind import ResourceKey
from controller.store.cache import Cache

SERVICES: Final = ResourceKey("", "services")
SLICES: Final = ResourceKey("discovery.k8s.io", "endpointslices")
SERVICE_NAME: Final = "kubernetes.io/service-name"
PATH_PARTS: Final = 7
"""api, v1, namespaces, NAMESPACE, RESOURCE, NAME, proxy; what follows is the server's."""
PAGE_BYTES_MAX: Final = 8 << 20
"""Pages beyond this are passed on as they are."""
HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
PRIVATE: Final = re.compile(r"authorization|impersonate-.*|x-remote-(user|uid|group|extra-.*)", re.IGNORECASE)
"""What says who the client is to this server."""
AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


def install(routes: Routes, spherelets: Spherelets) -> None:
    """Serve the subresources."""
    proxy = _Proxy(spherelets)
    routes.subresources[PODS, "proxy"] = proxy.pod
    routes.subresources[SERVICES, "proxy"] = proxy.service


def _anyone() -> ssl.SSLContext:
    """Pods' certificates are nobody's business here, as upstream: who may proxy decides what to trust."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Connected(aiohttp.BaseConnector):
    """One connection, on a socket that is connected already."""

    def __init__(self, connected: socket.socket, context: ssl.SSLContext | None) -> None:
        super().__init__(force_close=True)
        self._connected = connected
        self._context = context

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[aiohttp.tracing.Trace], timeout: aiohttp.ClientTimeout
    ) -> aiohttp.client_proto.ResponseHandler:
        loop, name = asyncio.get_running_loop(), "" if self._context is not None else None
        # uvloop's streams of TCP and of Unix sockets differ.
        unix = self._connected.family == socket.AF_UNIX
        connect = loop.create_unix_connection if unix else loop.create_connection
        _, protocol = await connect(self._factory, sock=self._connected, ssl=self._context, server_hostname=name)
        return protocol


class _Proxy:
    """The handlers."""

    def __init__(self, spherelets: Spherelets) -> None:
        self._spherelets = spherelets
        self._context = _anyone()

    async def pod(self, call: Call) -> Answer:
        target = call.request.target
        asked = asked_of(target.name, "pod")
        await call.api.ports.fresh()
        entry = call.api.ports.cache.get(PODS, target.namespace, asked.name)
        if entry is None:
            raise not_found(PODS, asked.name)
        return await self._serve(call, asked, place_of_pod(entry.decode(), asked))

    async def service(self, call: Call) -> Answer:
        target, cache = call.request.target, call.api.ports.cache
        asked = asked_of(target.name, "service")
        await call.api.ports.fresh()
        entry = cache.get(SERVICES, target.namespace, asked.name)
        if entry is None:
            raise not_found(SERVICES, asked.name)
        slices = [
            each.decode()
            for each in cache.list(SLICES, target.namespace)
            if each.labels.get(SERVICE_NAME) == asked.name and not each.deleting
        ]
        place = random.choice(places_of_service(entry.decode(), slices, asked))
        return await self._serve(call, asked, _reached(cache, target.namespace, place))

    async def _serve(self, call: Call, asked: Asked, place: Place) -> Answer:
        http: web.BaseRequest = call.request.http
        raw_path, _, query = http.raw_path.partition("?")
        subpath = subpath_of(raw_path, PATH_PARTS)
        if not subpath and http.method in ("GET", "HEAD"):
            return Reply(301, b"", "text/plain", {"Location": f"{raw_path}/{'?' if query else ''}{query}"})
        authority = f"[{place.address}]" if ":" in place.address else place.address
        url = f"{asked.scheme}://{authority}:{place.port}{subpath or '/'}{'?' if query else ''}{query}"
        exchange = _Exchange(http, URL(url, encoded=True), raw_path.removesuffix(subpath), self._context)
        try:
            return await self._connect(call, place, exchange.run)
        except TimeoutError as err:
            raise unreachable(f"error trying to reach service: dial tcp {authority}:{place.port}: i/o timeout") from err
        except (OSError, aiohttp.ClientError) as err:
            cause = str(err) if isinstance(err, TunnelBroken) else _cause(err, f"{authority}:{place.port}")
            raise unreachable(f"error trying to reach service: {cause}") from err

    async def _connect(
        self, call: Call, place: Place, use: Callable[[socket.socket], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if place.pod:
            endpoint = self._spherelets.endpoint(place.node)
            pod = (call.request.target.namespace, place.pod)
            return await through(self._spherelets, endpoint, pod, place.port, use)
        made = socket.socket(socket.AF_INET6 if ":" in place.address else socket.AF_INET, socket.SOCK_STREAM)
        with made:
            made.setblocking(False)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(made, (place.address, place.port))
            return await use(made)


def _reached(cache: Cache, namespace: str, place: Place) -> Place:
    """An endpoint as it is reached: through its pod's host, or from here where it is no pod's of the namespace."""
    if place.pod:
        entry = cache.get(PODS, namespace, place.pod)
    else:
        found = (each for each in cache.list(PODS, namespace) if each.fields.get("status.podIP") == place.address)
        entry = next(found, None)
    spec = (entry.decode().get("spec") or {}) if entry is not None else {}
    if entry is None or spec.get("hostNetwork"):
        return direct(place)
    return replace(place, pod=entry.name, node=spec.get("nodeName") or "")


def _cause(err: BaseException, where: str) -> str:
    if isinstance(err, aiohttp.ServerDisconnectedError):
        return f"{where} closed the connection without an answer"
    return f"dial tcp {where}: {str(err) or type(err).__name__}"


class _Exchange:
    """One request to the server, and its answer."""

    def __init__(self, http: web.BaseRequest, url: URL, prefix: str, context: ssl.SSLContext) -> None:
        self._http = http
        self._url = url
        self._prefix = prefix
        self._context = context if url.scheme == "https" else None

    async def run(self, connected: socket.socket) -> web.StreamResponse:
        asks = {token.strip().lower() for token in self._http.headers.get("Connection", "").split(",")}
        if "upgrade" in asks and self._http.headers.get("Upgrade"):
            return await self._upgrade(connected)
        http = self._http
        timeout = aiohttp.ClientTimeout(total=None)
        connector = _Connected(connected, self._context)
        async with (
            aiohttp.ClientSession(
                connector=connector, timeout=timeout, auto_decompress=False, skip_auto_headers=AUTOMATIC
            ) as session,
            session.request(
                http.method,
                self._url,
                headers=self._headers(),
                data=http.content if http.body_exists else None,
                allow_redirects=False,
            ) as answer,
        ):
            return await self._answer(answer)

    def _headers(self) -> CIMultiDict[str]:
        """The client's, without what concerns its connection to, or its standing with, this server."""
        named = {token.strip().lower() for token in self._http.headers.get("Connection", "").split(",")}
        headers: CIMultiDict[str] = CIMultiDict()
        for name, value in self._http.headers.items():
            # Without Accept-Encoding pages come as they are, and their links can be found.
            if name.lower() in HOP_BY_HOP | named | {"accept-encoding", "expect"} or PRIVATE.fullmatch(name):
                continue
            headers.add(name, value)
        if self._http.remote:
            before = self._http.headers.get("X-Forwarded-For")
            headers["X-Forwarded-For"] = f"{before}, {self._http.remote}" if before else self._http.remote
        headers["X-Forwarded-Proto"] = self._http.scheme
        headers["X-Forwarded-Host"] = self._http.host
        headers["X-Forwarded-Uri"] = self._http.raw_path.partition("?")[0]
        return headers

    def _hosts(self) -> frozenset[str]:
        return frozenset({self._http.host, self._url.raw_authority})

    async def _answer(self, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        headers = CIMultiDict((name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP)
        if "Location" in headers:
            headers["Location"] = rewrite_link(headers["Location"], self._prefix, self._hosts())
        page = answer.content_type == "text/html" and "Content-Encoding" not in headers
        begun = b""
        if page and self._http.method != "HEAD":
            while len(begun) <= PAGE_BYTES_MAX and (piece := await answer.content.readany()):
                begun += piece
            if len(begun) <= PAGE_BYTES_MAX:
                begun = rewrite_page(begun, self._prefix, self._hosts())
                headers["Content-Length"] = str(len(begun))
        client = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
        await client.prepare(self._http)
        try:
            if begun:
                await client.write(begun)
            async for piece in answer.content.iter_any():
                await client.write(piece)
            await client.write_eof()
        except (OSError, aiohttp.ClientError):
            # Either side left in the middle. The client must not take what it has for all of it.
            if self._http.transport is not None:
                self._http.transport.abort()
        return client

    async def _upgrade(self, connected: socket.socket) -> web.StreamResponse:
        """WebSockets and the like: once the server has agreed, bytes are bytes."""
        http, target = self._http, self._url.raw_path_qs
        name = "" if self._context is not None else None
        async with asyncio.timeout(UPGRADE_TIMEOUT_S):
            unix = connected.family == socket.AF_UNIX
            open_streams = asyncio.open_unix_connection if unix else asyncio.open_connection
            reader, writer = await open_streams(
                sock=connected, ssl=self._context, server_hostname=name, limit=upgrade.READ_BYTES
            )
            offered = [("Connection", "Upgrade"), ("Upgrade", http.headers["Upgrade"]), *self._headers().items()]
            answer = await upgrade.ask(reader, writer, http.method, target, offered)
        if answer.connection is None:
            kind = answer.headers.get("content-type", "text/plain")
            return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": kind})
        agreed = {key: value for key, value in answer.headers.items() if key != "connection"}
        try:
            async with upgrade.accept(http, agreed) as client:
                await relay_bytes(client, answer.connection)
        except ConnectionError:
            pass
        finally:
            answer.connection.abort()
        return upgrade.Detached()

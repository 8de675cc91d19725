"""Logs, exec, attach, port-forward and proxies: bytes relayed between a client and a spherelet, not understood."""

import asyncio
import contextlib
from typing import Any, Final

import aiohttp
from aiohttp import WSMsgType, web

from common import upgrade
from controller.api import log_socket
from controller.api.api import Call, Routes
from controller.api.request import Answer, Reply, Stream, Write
from controller.api.spherelets import Endpoint, Query, Spherelets, error_of
from controller.api.status import bad_request, not_found
from controller.kinds.kind import Object, ResourceKey

PODS: Final = ResourceKey("", "pods")
NODES: Final = ResourceKey("", "nodes")
SPDY: Final = "SPDY/3.1"
VERSION_HEADER: Final = "X-Stream-Protocol-Version"
_LOG_OPTIONS: Final = (
    "follow",
    "tailLines",
    "sinceSeconds",
    "sinceTime",
    "timestamps",
    "previous",
    "limitBytes",
    "stream",
)
_EXEC_OPTIONS: Final = ("command", "stdin", "stdout", "stderr", "tty")


def install(routes: Routes, spherelets: Spherelets) -> None:
    """Serve the streaming subresources."""
    relay = _Relay(spherelets)
    for name, handler in (
        ("log", relay.log),
        ("exec", relay.exec),
        ("attach", relay.attach),
        ("portforward", relay.port_forward),
    ):
        routes.subresources[PODS, name] = handler
    routes.subresources[NODES, "proxy"] = relay.node_proxy


def _containers(pod: Object) -> list[str]:
    spec = pod.get("spec") or {}
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container["name"] for kind in kinds for container in spec.get(kind) or []]


def pick_container(pod: Object, asked: str) -> str:
    """The container that a request means. Raises ``ApiError`` 400 in upstream's words."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    everything, plain = _containers(pod), [each["name"] for each in spec.get("containers") or []]
    if not asked:
        if len(everything) == 1:
            return str(plain[0])
        chosen = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if chosen in plain:
            return str(chosen)
        raise bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(plain)}]"
            + _init_names(spec.get("initContainers") or [])
        )
    if asked not in everything:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    return asked


def _init_names(containers: list[Object]) -> str:
    return f" or one of the init containers: [{' '.join(each['name'] for each in containers)}]" if containers else ""


def container_state(pod: Object, container: str) -> tuple[str, str]:
    """(``waiting``, ``running``, ``terminated`` or empty, reason) of a container."""
    status: dict[str, Any] = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind) or []:
            if each.get("name") == container:
                for state, detail in (each.get("state") or {}).items():
                    return state, str((detail or {}).get("reason", ""))
    return "", ""


def _never_ran(pod: Object, container: str) -> bool:
    status: dict[str, Any] = pod.get("status") or {}
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for each in status.get(kind) or []:
            if each.get("name") == container:
                return not each.get("lastState") and not each.get("restartCount")
    return True


class _Relay:
    """The handlers; each finds pod and node in the cache, then hands the connection over."""

    def __init__(self, spherelets: Spherelets) -> None:
        self._spherelets = spherelets

    async def _pod(self, call: Call) -> Object:
        target = call.request.target
        await call.api.ports.fresh()
        entry = call.api.ports.cache.get(PODS, target.namespace, target.name)
        if entry is None:
            raise not_found(PODS, target.name)
        return entry.decode()

    def _endpoint(self, pod: Object) -> Endpoint:
        node = (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
        return self._spherelets.endpoint(node)

    async def log(self, call: Call) -> Answer:
        request, pod = call.request, await self._pod(call)
        container = pick_container(pod, request.text("container"))
        state, reason = container_state(pod, container)
        where = f'container "{container}" in pod "{pod["metadata"]["name"]}"'
        if not (pod.get("spec") or {}).get("nodeName"):
            return Reply(200, b"", "text/plain")
        if state == "waiting" and _never_ran(pod, container):
            raise bad_request(f"{where} is waiting to start: {reason or 'ContainerCreating'}")
        upgrading = log_socket.wanted(request.http)
        query = [(name, request.text(name)) for name in _LOG_OPTIONS if request.text(name)]
        path = f"/containerLogs/{request.target.namespace}/{request.target.name}/{container}"
        response = await self._spherelets.open(self._endpoint(pod), "GET", path, query)
        if response.status != 200:
            async with response:
                err = await error_of(response)
            if err.code == 404 and not state:
                raise bad_request(f"{where} is waiting to start: ContainerCreating")
            raise err
        if upgrading:
            return await log_socket.send(request.http, _copy_from(response))
        return Stream(_copy_from(response), "text/plain")

    async def exec(self, call: Call) -> Answer:
        return await self._command(call, "exec")

    async def attach(self, call: Call) -> Answer:
        return await self._command(call, "attach")

    async def _command(self, call: Call, verb: str) -> Answer:
        request, pod = call.request, await self._pod(call)
        phase = (pod.get("status") or {}).get("phase")
        if phase in ("Succeeded", "Failed"):
            raise bad_request(f"cannot {verb} into a container in a completed pod; current phase is {phase}")
        container = pick_container(pod, request.text("container"))
        if verb == "exec" and not request.query.get("command"):
            raise bad_request("you must specify at least 1 command for the container")
        query = [(name, value) for name in _EXEC_OPTIONS for value in request.query.get(name, ())]
        path = f"/{verb}/{request.target.namespace}/{request.target.name}/{container}"
        return await self._upgrade(call, self._endpoint(pod), path, query)

    async def port_forward(self, call: Call) -> Answer:
        request, pod = call.request, await self._pod(call)
        query = [(key, value) for key in ("ports", "port") for value in request.query.get(key, ())]
        path = f"/portForward/{request.target.namespace}/{request.target.name}"
        return await self._upgrade(call, self._endpoint(pod), path, query)

    async def _upgrade(self, call: Call, endpoint: Endpoint, path: str, query: Query) -> Answer:
        http: web.BaseRequest | None = call.request.http
        wanted = http.headers.get("Upgrade", "").lower() if http is not None else ""
        if http is not None and wanted == SPDY.lower():
            return await self._upgrade_spdy(http, endpoint, path, query)
        if http is None or wanted != "websocket":
            otherwise = bad_request("unable to upgrade: ask for an upgrade to WebSocket or to SPDY/3.1")
            raise await self._spherelets.why_refused(endpoint, path, query, otherwise)
        return await self._upgrade_websocket(http, endpoint, path, query)

    async def _upgrade_spdy(self, http: web.BaseRequest, endpoint: Endpoint, path: str, query: Query) -> Answer:
        offered = [(VERSION_HEADER, each) for each in http.headers.getall(VERSION_HEADER, [])]
        answer = await self._spherelets.open_upgraded(endpoint, path, query, [("Upgrade", SPDY), *offered])
        assert answer.connection is not None
        chosen = answer.headers.get(VERSION_HEADER.lower(), "")
        try:
            with contextlib.suppress(ConnectionError):
                async with upgrade.accept(http, {"Upgrade": SPDY, VERSION_HEADER: chosen}) as client:
                    await relay_bytes(client, answer.connection)
        finally:
            # Either the node has ended the session, or the client has left and what it sent last has no meaning.
            answer.connection.abort()
        return upgrade.Detached()

    async def _upgrade_websocket(self, http: web.BaseRequest, endpoint: Endpoint, path: str, query: Query) -> Answer:
        offered = [part.strip() for part in http.headers.get("Sec-WebSocket-Protocol", "").split(",") if part.strip()]
        node = await self._spherelets.open_websocket(endpoint, path, query, offered)
        if offered and node.protocol not in offered:
            await node.close()
            raise bad_request(f"none of the subprotocols {', '.join(offered)} is supported")
        client = web.WebSocketResponse(
            protocols=(node.protocol,) if node.protocol else (), max_msg_size=0, compress=False, timeout=2.0
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(node.close)
            await client.prepare(http)
            await relay_websockets(client, node)
        return client

    async def node_proxy(self, call: Call) -> Answer:
        """``/api/v1/nodes/<name>/proxy/<path>``; a port after the name (``host-1:10250``) is accepted."""
        request = call.request
        name = request.target.name.partition(":")[0]
        return await forward(self._spherelets, self._spherelets.endpoint(name), call)


async def forward(spherelets: Spherelets, endpoint: Endpoint, call: Call) -> Answer:
    """Relay one plain HTTP request to a spherelet."""
    request = call.request
    query = [(key, value) for key, values in request.query.items() for value in values]
    body = await request.read() if request.method not in ("GET", "HEAD") else None
    response = await spherelets.open(endpoint, request.method, f"/{request.target.subpath}", query, body)
    kind = response.headers.get("Content-Type", "application/octet-stream")
    if response.status == 200:
        return Stream(_copy_from(response), kind)
    async with response:
        return Reply(response.status, await response.read(), kind)


def _copy_from(response: aiohttp.ClientResponse) -> Any:
    async def run(write: Write) -> None:
        async with response:
            try:
                async for piece in response.content.iter_any():
                    await write(piece)
            except aiohttp.ClientError:
                # The node went away in the middle: end the stream as a broken connection would.
                return

    return run


async def relay_bytes(client: upgrade.Connection, node: upgrade.Connection) -> None:
    """Pass bytes both ways, whatever they mean, until a side leaves; a slow side slows down the other.

    When the node ends the session, the client first takes what is under way.
    """

    async def pass_on(source: upgrade.Connection, target: upgrade.Connection) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await source.read():
                await target.write(piece)
            await target.flush()

    async with asyncio.TaskGroup() as group:
        ways = [group.create_task(pass_on(client, node)), group.create_task(pass_on(node, client))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()


async def relay_websockets(client: web.WebSocketResponse, node: aiohttp.ClientWebSocketResponse) -> None:
    """Pass messages both ways until either side closes; the other is closed with the same code."""

    async def up() -> None:
        async for message in client:
            if message.type == WSMsgType.BINARY:
                await node.send_bytes(message.data)
            elif message.type == WSMsgType.TEXT:
                await node.send_str(message.data)
        await node.close(code=client.close_code or 1000)

    async def down() -> None:
        async for message in node:
            if message.type == WSMsgType.BINARY:
                await client.send_bytes(message.data)
            elif message.type == WSMsgType.TEXT:
                await client.send_str(message.data)
        await client.close(code=node.close_code or 1000)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(up())
            group.create_task(down())
    except* (ConnectionError, aiohttp.ClientError):
        # Either side broke off; the connection's end is all the other side gets to know.
        pass

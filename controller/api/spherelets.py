"""Connections to spherelets: where a node listens, and requests to it under the controller's identity."""

import asyncio
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from yarl import URL

from common import upgrade
from controller.api.status import ApiError, not_found
from controller.kinds.kind import Object, ResourceKey
from controller.store.cache import Cache

NODES: Final = ResourceKey("", "nodes")
DEFAULT_PORT: Final = 10250
CONNECT_TIMEOUT_S: Final = 5.0
UPGRADE_TIMEOUT_S: Final = 10.0
ERROR_BYTES_MAX: Final = 64 * 1024
Query = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node's spherelet listens."""

    node: str
    address: str
    port: int

    def url(self, path: str, *, scheme: str = "https") -> str:
        return f"{scheme}://{self.address}:{self.port}{path}"


def endpoint_of(node: Object) -> Endpoint:
    """The endpoint that a node's status names. Raises ``ApiError`` 500 when it names none."""
    name = node["metadata"]["name"]
    status: dict[str, Any] = node.get("status") or {}
    found = {each.get("type"): each.get("address") for each in status.get("addresses") or []}
    address = found.get("InternalIP") or found.get("Hostname")
    if not address:
        raise ApiError(
            500, "InternalError", f'no preferred addresses found for node "{name}"; is its spherelet running?'
        )
    port = ((status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}).get("Port") or DEFAULT_PORT
    return Endpoint(name, str(address), int(port))


class Spherelets:
    """Opens requests to nodes. One connection pool; ``close`` it at the end."""

    def __init__(self, cache: Cache, context: ssl.SSLContext) -> None:
        self._cache = cache
        self._context = context
        self._session: aiohttp.ClientSession | None = None

    def endpoint(self, node: str) -> Endpoint:
        """Raises ``ApiError`` 404 for an unknown node."""
        entry = self._cache.get(NODES, "", node)
        if entry is None:
            raise not_found(NODES, node)
        return endpoint_of(entry.decode())

    def session(self) -> aiohttp.ClientSession:
        """The shared session; made on first use, inside the running loop."""
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0, limit_per_host=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def open(
        self, endpoint: Endpoint, method: str, path: str, query: Query = (), body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """Send a request; the caller reads and closes the response. Raises ``ApiError`` when the node is away."""
        try:
            return await self.session().request(
                method, endpoint.url(path), params=list(query), data=body, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise unreachable(endpoint, err) from err

    async def open_websocket(
        self, endpoint: Endpoint, path: str, query: Query, protocols: Sequence[str]
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket. Raises ``ApiError``: the node's own answer when it refuses, 500 when it is away."""
        url = endpoint.url(path)
        try:
            return await self.session().ws_connect(
                url, params=list(query), protocols=tuple(protocols), max_msg_size=0, autoping=True, compress=0
            )
        except aiohttp.WSServerHandshakeError as err:
            otherwise = ApiError(err.status or 500, "InternalError", f"error dialing backend: {err.message}")
            raise await self.why_refused(endpoint, path, query, otherwise) from err
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise unreachable(endpoint, err) from err

    async def open_upgraded(
        self, endpoint: Endpoint, path: str, query: Query, headers: Sequence[tuple[str, str]]
    ) -> upgrade.Answer:
        """Upgrade to another protocol; the caller closes the answer's connection.

        Raises ``ApiError``: the node's own answer when it refuses, 500 when it is away.
        """
        target = URL(path).with_query(list(query)).raw_path_qs
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT_S):
                answer = await upgrade.request(endpoint.address, endpoint.port, self._context, target, headers)
        except (TimeoutError, OSError) as err:
            raise unreachable(endpoint, err) from err
        if answer.connection is None:
            raise _refusal(answer.status, answer.body)
        return answer

    async def why_refused(self, endpoint: Endpoint, path: str, query: Query, otherwise: ApiError) -> ApiError:
        """Why a stream would not start, asked without upgrading (which starts nothing); else ``otherwise``.

        A refused handshake has no body, and clients that fell back from WebSocket to SPDY show this answer.
        """
        response = await self.open(endpoint, "GET", path, query)
        async with response:
            if response.status < 400:
                return otherwise
            found = await error_of(response)
        return otherwise if "upgrade" in found.message.lower() else found


def unreachable(endpoint: Endpoint, err: BaseException) -> ApiError:
    """500 in upstream's words, with what to look at."""
    where = f"{endpoint.address}:{endpoint.port}"
    if isinstance(err, TimeoutError):
        cause = "i/o timeout"
    elif isinstance(err, aiohttp.ClientConnectorError) and err.os_error.errno:
        cause = f"connect: {os.strerror(abs(err.os_error.errno)).lower()}"
    elif isinstance(err, OSError) and err.errno and not isinstance(err, ssl.SSLError):
        cause = f"connect: {os.strerror(abs(err.errno)).lower()}"
    else:
        cause = str(err) or type(err).__name__
    message = f"error dialing backend: dial tcp {where}: {cause} (is the spherelet of node {endpoint.node} running?)"
    return ApiError(500, "InternalError", message)


_REASONS: Final = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict"}


async def error_of(response: aiohttp.ClientResponse) -> ApiError:
    """A spherelet's refusal as an ``ApiError`` of the same code."""
    try:
        raw = await response.content.read(ERROR_BYTES_MAX)
    except aiohttp.ClientError:
        raw = b""
    return _refusal(response.status, raw)


def _refusal(status: int, body: bytes) -> ApiError:
    text = body.decode(errors="replace").strip()
    code = status if status >= 400 else 500
    return ApiError(code, _REASONS.get(code, "InternalError"), text or f"the spherelet answered {status}")

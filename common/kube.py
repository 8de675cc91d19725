"""A small client of the Kubernetes API: JSON in and out, list and watch that never lose their place.

Errors: ``KubeError`` for an answer (``code``, ``reason`` and message of its Status; ``final`` if repeating is
useless), ``KubeUnavailable`` when there was none.
"""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import orjson

from common.errors import Retryable
from common.logs import logger
from common.tasks import backoff_s

REQUEST_TIMEOUT_S = 30.0
WATCH_TIMEOUT_S = 600
"""The server ends a watch after this; a new one goes on from where it was."""
WATCH_SILENCE_S = 900.0
LINE_BYTES_MAX = 16 << 20

log = logger("kube")

Object = dict[str, Any]


class KubeUnavailable(Retryable):
    """The API could not be reached or did not answer."""

    code = 0
    final = False


class KubeError(Retryable):
    """The API answered with a failure."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message or f"HTTP {code}")
        self.code = code
        self.reason = reason
        self.final = 400 <= code < 500 and code not in (408, 429)


class KubeClient:
    """Requests to one API server. Close it."""

    def __init__(self, url: str, tls: ssl.SSLContext | None, *, connections_max: int = 32) -> None:
        """Each watch holds a connection; ``connections_max`` 0 is no limit, for a client that holds many."""
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls if tls is not None else False, limit=connections_max, keepalive_timeout=75
            ),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            read_bufsize=1 << 18,
            max_line_size=1 << 16,
        )

    async def close(self) -> None:
        await self._session.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        """GET an object or a list."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Object) -> Object:
        """POST to a collection (or a subresource such as ``token``)."""
        return await self._request("POST", path, body)

    async def update(self, path: str, body: Object) -> Object:
        """PUT an object."""
        return await self._request("PUT", path, body)

    async def patch(self, path: str, body: object, content_type: str = "application/merge-patch+json") -> Object:
        """PATCH an object or a subresource."""
        return await self._request("PATCH", path, body, content_type=content_type)

    async def delete(self, path: str, body: Object | None = None) -> Object:
        """DELETE with ``DeleteOptions``."""
        return await self._request("DELETE", path, body)

    async def follow(
        self,
        path: str,
        params: Mapping[str, str],
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[str, Object], None],
    ) -> None:
        """List, then watch, forever: ``on_list`` gets everything (again after a gap), ``on_event`` one change.

        Event types are ``ADDED``, ``MODIFIED`` and ``DELETED``. Both are called on the event loop and must not block.
        """
        failures = 0
        version = ""
        while True:
            try:
                if not version:
                    listed = await self.get(path, params)
                    version = str(listed["metadata"]["resourceVersion"])
                    on_list(listed.get("items") or [])
                async for kind, item in self._watch(path, params, version):
                    failures = 0
                    if kind == "ERROR":
                        # Mostly 410 Gone: the place is lost, and only a new list closes the gap.
                        log.info("watch lost its place", object=path, reason=str(item.get("message")))
                        version = ""
                        break
                    version = str(item["metadata"]["resourceVersion"])
                    if kind != "BOOKMARK":
                        on_event(kind, item)
                continue
            except KubeError as err:
                reason, gone = str(err), err.code == 410
                version = "" if gone else version
            except KubeUnavailable as err:
                reason = str(err)
            failures += 1
            log.info("watch interrupted", object=path, reason=reason)
            await asyncio.sleep(backoff_s(failures, base_s=0.1, cap_s=5.0) * random.uniform(0.7, 1.3))

    async def _watch(self, path: str, params: Mapping[str, str], version: str) -> AsyncIterator[tuple[str, Object]]:
        query = {
            **params,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_TIMEOUT_S),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=WATCH_SILENCE_S)
        try:
            async with self._session.get(self._url + path, params=query, timeout=timeout) as answer:
                if answer.status != 200:
                    raise _error(answer.status, await answer.read())
                buffer = bytearray()
                async for chunk in answer.content.iter_any():
                    buffer += chunk
                    if b"\n" not in chunk:
                        if len(buffer) > LINE_BYTES_MAX:
                            raise KubeUnavailable(f"watch of {path}: one event is larger than {LINE_BYTES_MAX} bytes")
                        continue
                    *lines, rest = bytes(buffer).split(b"\n")
                    buffer = bytearray(rest)
                    for line in lines:
                        if line:
                            event = orjson.loads(line)
                            yield event["type"], event["object"]
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise KubeUnavailable(f"watch of {path}: {err or type(err).__name__}") from err

    async def _request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        data = orjson.dumps(body) if body is not None else None
        headers = {"Content-Type": content_type} if data is not None else {}
        try:
            async with self._session.request(
                method, self._url + path, params=params, data=data, headers=headers
            ) as answer:
                text = await answer.read()
                if answer.status >= 400:
                    raise _error(answer.status, text)
        except (aiohttp.ClientError, TimeoutError, OSError) as err:
            raise KubeUnavailable(f"{method} {path}: {err or type(err).__name__}") from err
        return orjson.loads(text) if text else {}


def _error(code: int, text: bytes) -> KubeError:
    try:
        status = orjson.loads(text)
    except orjson.JSONDecodeError:
        status = {}
    if not isinstance(status, dict):
        status = {}
    message = str(status.get("message") or text[:200].decode("utf-8", "replace"))
    return KubeError(code, str(status.get("reason") or ""), message)

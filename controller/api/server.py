"""aiohttp glue: requests become ``request.Request``, answers become responses. No decisions here."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from urllib.parse import unquote

import orjson
from aiohttp import ClientConnectionError, web
from cryptography import x509
from cryptography.x509.oid import NameOID

from common.errors import ConfigError
from common.logs import logger
from controller.api.access import CertInfo
from controller.api.api import Api
from controller.api.body import BODY_BYTES_MAX
from controller.api.request import Reply, Request, Stream
from controller.api.status import ApiError, bad_request, too_large

log = logger("server")
LISTEN_FDS_START = 3
WRITE_BYTES_MAX = 256 * 1024
READ_TIMEOUT_S = 30.0
REQUEST_LINE_MAX = 1 << 20
"""Bytes. The words of a command that kubectl executes are in the URL; upstream takes as much."""


class Server:
    """Serves an ``Api`` on sockets until cancelled."""

    def __init__(self, api: Api, context: ssl.SSLContext | None) -> None:
        self._api = api
        self._context = context

    async def run(self, sockets: Sequence[socket.socket], started: asyncio.Event | None = None) -> None:
        """Accept connections on bound ``sockets``; sets ``started`` once they are."""
        server = web.Server(
            self._handle,
            access_log=None,
            keepalive_timeout=300.0,
            max_line_size=REQUEST_LINE_MAX,
            # Without it a watch whose client left would run until its next event.
            handler_cancellation=True,
        )
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=0.2)
        await runner.setup()
        try:
            for item in sockets:
                await web.SockSite(runner, item, ssl_context=self._context, backlog=1024).start()
                log.info("listening", address=str(item.getsockname()))
            if started is not None:
                started.set()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    async def _handle(self, http: web.BaseRequest) -> web.StreamResponse:
        request = _request(http)
        try:
            answer = await self._api.handle(request)
        except ClientConnectionError:
            raise
        except Exception:
            # A bug: the client hears of it, the log has all of it, the other requests go on.
            log.exception("request failed", path=request.path, verb=request.method)
            err = ApiError(500, "InternalError", "Internal error occurred: see the log of sphere-controller")
            answer = Reply(500, orjson.dumps(err.status()))
        if isinstance(answer, Reply):
            return await _send_reply(http, answer)
        if isinstance(answer, Stream):
            return await _send_stream(http, answer)
        if isinstance(answer, web.StreamResponse):
            return answer
        raise AssertionError(f"a handler answered {type(answer).__name__}")


def _request(http: web.BaseRequest) -> Request:
    query: dict[str, list[str]] = {}
    for name, value in http.query.items():
        query.setdefault(name, []).append(value)

    async def read() -> bytes:
        return await _read(http)

    return Request(
        method=http.method,
        path=unquote(http.rel_url.raw_path),
        query=query,
        headers=http.headers,
        peer=_peer(http),
        read=read,
        http=http,
    )


async def _read(http: web.BaseRequest) -> bytes:
    if (http.content_length or 0) > BODY_BYTES_MAX:
        raise too_large(BODY_BYTES_MAX)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            async for piece in http.content.iter_any():
                size += len(piece)
                if size > BODY_BYTES_MAX:
                    raise too_large(BODY_BYTES_MAX)
                pieces.append(piece)
    except TimeoutError:
        raise ApiError(408, "Timeout", "the request body did not arrive in time") from None
    except (web.PayloadAccessError, ValueError) as err:
        raise bad_request(f"the request body cannot be read: {err}") from err
    return b"".join(pieces)


def _peer(http: web.BaseRequest) -> CertInfo | None:
    transport = http.transport
    if transport is None:
        return None
    tls = transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    return cert_info(der) if der else None


_CERTS: dict[bytes, CertInfo] = {}
_CERTS_MAX = 4096


def cert_info(der: bytes) -> CertInfo:
    """Subject of a verified certificate; remembered, because every request of a connection asks."""
    found = _CERTS.get(der)
    if found is None:
        subject = x509.load_der_x509_certificate(der).subject
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        found = CertInfo(str(names[0].value) if names else "", tuple(str(item.value) for item in groups), der)
        if len(_CERTS) >= _CERTS_MAX:
            _CERTS.clear()
        _CERTS[der] = found
    return found


async def _send_reply(http: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    headers = {"Cache-Control": "no-cache, private", "Content-Type": reply.content_type, **reply.headers}
    if isinstance(reply.body, bytes):
        return web.Response(status=reply.status, body=reply.body, headers=headers)
    response = web.StreamResponse(status=reply.status, headers=headers)
    response.content_length = sum(map(len, reply.body))
    await response.prepare(http)
    if http.method != "HEAD":
        batch: list[bytes] = []
        size = 0
        for piece in reply.body:
            batch.append(piece)
            size += len(piece)
            if size >= WRITE_BYTES_MAX:
                await response.write(b"".join(batch))
                batch, size = [], 0
        await response.write(b"".join(batch))
    await response.write_eof()
    return response


async def _send_stream(http: web.BaseRequest, stream: Stream) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Cache-Control": "no-cache, private", "Content-Type": stream.content_type})
    if http.version >= (1, 1):
        response.enable_chunked_encoding()
    await response.prepare(http)
    # The client leaving is how most watches end.
    with contextlib.suppress(ConnectionError, ClientConnectionError):
        await stream.run(response.write)
        await response.write_eof()
    return response


def inherited_sockets() -> list[socket.socket]:
    """Sockets passed by systemd or whoever speaks its protocol (LISTEN_FDS, LISTEN_PID)."""
    if os.environ.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0") or "0")
    found = [socket.socket(fileno=LISTEN_FDS_START + index) for index in range(count)]
    for item in found:
        item.setblocking(False)
    return found


def bind(address: str) -> socket.socket:
    """A listening TCP socket on ``host:port``; IPv6 hosts in brackets. Raises ``OSError``."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((host, int(port)))
    made.setblocking(False)
    return made


def listening_sockets(address: str) -> list[socket.socket]:
    """Inherited sockets, and one on ``address`` unless it is empty or inherited already.

    Raises ``ConfigError`` when the address cannot be had.
    """
    found = inherited_sockets()
    names = {f"{item.getsockname()[0]}:{item.getsockname()[1]}" for item in found}
    if address and address not in names:
        try:
            found.append(bind(address))
        except OSError as err:
            raise ConfigError(f"cannot listen on api.listen = {address}: {err.strerror}") from err
    if not found:
        raise ConfigError("api.listen is empty and no socket was inherited: nothing to serve; set api.listen")
    return found

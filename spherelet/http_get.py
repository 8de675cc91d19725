"""One HTTP GET from inside a pod's own network, for probes and hooks: no policy is in its way.

Redirects are followed as kubelet does: on the same host, ten of them at most; one to another host is the answer.
"""

import asyncio
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from common.errors import Retryable
from spherelet.netns import socket_in

Object = dict[str, Any]
HEADER_BYTES_MAX: Final = 16 << 10
REDIRECTS_MAX: Final = 10
USER_AGENT: Final = "kube-probe/1.36"


class GetFailed(Retryable):
    """No answer; the message is upstream's."""


@dataclass(frozen=True, slots=True)
class Place:
    """Host and port, and the network to go out from (None: this host's)."""

    host: str
    port: int
    netns: Path | None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """Status code and ``Location`` (empty without one) of a response."""

    status: int
    location: str = ""


async def get(wanted: Object, place: Place, timeout_s: float) -> int:
    """Status code of a ``v1.HTTPGetAction`` at ``place``. Raises ``GetFailed``."""
    path = str(wanted.get("path") or "/")
    scheme = str(wanted.get("scheme") or "HTTP").lower()
    first = url = f"{scheme}://{place}{path if path.startswith('/') else '/' + path}"
    try:
        async with asyncio.timeout(timeout_s):
            for _ in range(REDIRECTS_MAX):
                answer = await _once(wanted, url, place)
                target = urljoin(url, answer.location) if answer.location else ""
                if not 300 <= answer.status < 400 or not target or urlsplit(target).hostname != urlsplit(url).hostname:
                    return answer.status
                url = target
    except TimeoutError as err:
        text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        raise GetFailed(f'Get "{url}": {text}') from err
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as err:
        raise GetFailed(f'Get "{url}": {err or "EOF"}') from err
    raise GetFailed(f'Get "{first}": stopped after {REDIRECTS_MAX} redirects')


async def _once(wanted: Object, url: str, place: Place) -> Answer:
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    there = Place(place.host, parts.port or (443 if tls else 80), place.netns)
    try:
        made = await connect(there)
    except OSError as err:
        raise GetFailed(f'Get "{url}": {dial_error(there, err)}') from err
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    answer = await _answer(made, _request(wanted, there, target), tls=tls)
    if answer is None:
        raise GetFailed(f'Get "{url}": malformed HTTP response')
    return answer


async def connect(place: Place) -> socket.socket:
    """A connected socket. Raises ``OSError``."""
    made = socket_in(place.netns, socket.AF_INET6 if ":" in place.host else socket.AF_INET)
    try:
        await asyncio.get_running_loop().sock_connect(made, (place.host, place.port))
    except BaseException:
        made.close()
        raise
    return made


def dial_error(place: Place, err: OSError) -> str:
    """Upstream's words for a connection that failed."""
    if isinstance(err, TimeoutError) and not err.errno:
        return f"dial tcp {place}: i/o timeout"
    return f"dial tcp {place}: connect: {os.strerror(err.errno or 0).lower()}"


def _request(wanted: Object, place: Place, target: str) -> bytes:
    headers = {"host": str(place), "user-agent": USER_AGENT, "accept": "*/*", "connection": "close"}
    for each in wanted.get("httpHeaders") or ():
        headers[str(each["name"]).lower()] = str(each.get("value") or "")
    lines = [f"GET {_quoted(target)} HTTP/1.1", *(f"{name}: {_clean(value)}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _quoted(target: str) -> str:
    """A request target without what would end it early."""
    return target.replace(" ", "%20").replace("\r", "%0D").replace("\n", "%0A")


def _clean(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


async def _answer(made: socket.socket, request: bytes, *, tls: bool) -> Answer | None:
    """Send ``request`` and read the head of the answer; None when it is not HTTP."""
    context = _unverified() if tls else None
    try:
        reader, writer = await asyncio.open_connection(
            sock=made, ssl=context, server_hostname="probe" if tls else None, limit=HEADER_BYTES_MAX
        )
    except BaseException:
        made.close()
        raise
    try:
        writer.write(request)
        await writer.drain()
        first = (await reader.readuntil(b"\n")).split()
        if len(first) < 2 or not first[0].startswith(b"HTTP/") or not first[1].isdigit():
            return None
        status = int(first[1])
        return Answer(status, await _location(reader) if 300 <= status < 400 else "")
    finally:
        writer.close()


async def _location(reader: asyncio.StreamReader) -> str:
    """The ``Location`` header of an answer whose first line was read."""
    left = HEADER_BYTES_MAX
    while left > 0:
        line = await reader.readline()
        left -= len(line)
        name, colon, value = line.partition(b":")
        if not colon:
            break
        if name.strip().lower() == b"location":
            return value.strip().decode("latin-1")
    return ""


def _unverified() -> ssl.SSLContext:
    """Certificates are not checked, as upstream: this asks for health, not for identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

"""A small HTTPS server for /metrics, /healthz and /readyz: GET only, no framework.

Health needs no certificate, so that anything can probe it; metrics need a client certificate of the cluster's CA
with a common name or an organisation that is allowed.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from common.errors import ConfigError, SphereError
from common.settings import TlsFiles
from common.tls import server_context

REQUEST_BYTES_MAX: Final = 16384
IDLE_S_MAX: Final = 30.0
CONNECTIONS_MAX: Final = 64
ALLOWED_NAMES: Final = frozenset({"prometheus", "kubernetes-admin", "sphere-controller"})
ALLOWED_GROUPS: Final = frozenset({"system:masters", "system:monitoring"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Page:
    """A path's handler. ``public`` needs no certificate."""

    handler: Callable[[], Awaitable[Answer]]
    public: bool = False


REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def allowed(certificate: Mapping[str, object] | None) -> bool:
    """Whether a peer certificate (as ``SSLObject.getpeercert`` gives it) may read metrics."""
    names = subject(certificate, "commonName")
    groups = subject(certificate, "organizationName")
    return bool(names & ALLOWED_NAMES or groups & ALLOWED_GROUPS)


def subject(certificate: Mapping[str, object] | None, field: str) -> frozenset[str]:
    """Values of one field of a certificate's subject."""
    found: set[str] = set()
    parts = (certificate or {}).get("subject", ())
    if isinstance(parts, tuple):
        for relative in parts:
            found.update(value for name, value in relative if name == field)
    return frozenset(found)


class PageServer:
    """Serves ``pages`` on ``listen`` (``ADDRESS:PORT``)."""

    def __init__(self, listen: str, tls: TlsFiles, pages: Mapping[str, Page]) -> None:
        self._listen = listen
        self._tls = tls
        self._pages = pages
        self._open = 0
        self.port = 0
        """The port in use, once listening."""

    async def run(self) -> None:
        """Serve until cancelled. Raises ``ConfigError`` if it cannot listen."""
        host, _, port = self._listen.rpartition(":")
        try:
            context = server_context(self._tls, client_certificate=False)
            server = await asyncio.start_server(
                self._serve, host or None, int(port), ssl=context, limit=REQUEST_BYTES_MAX
            )
        except (OSError, ValueError) as err:
            raise ConfigError(f"cannot listen on {self._listen}: {err}; check address, port and tls files") from err
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open > CONNECTIONS_MAX:
                return
            while await self._one(reader, writer):
                pass
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ssl.SSLError):
            pass  # the client is gone, slow or talks nonsense: it is dropped
        except asyncio.CancelledError:
            pass  # shutting down; passed on, asyncio's own callback would print a trace of it
        finally:
            self._open -= 1
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_S_MAX)
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            await _send(writer, Answer(400, b"bad request\n"), keep=False)
            return False
        keep = words[2] == "HTTP/1.1" and b"connection: close" not in head.lower()
        certificate = writer.get_extra_info("peercert")
        found = await answer(self._pages, words[0], words[1].partition("?")[0], certificate)
        await _send(writer, found, keep=keep)
        return keep


async def answer(pages: Mapping[str, Page], method: str, path: str, certificate: Mapping[str, object] | None) -> Answer:
    """What ``pages`` say to a request; ``certificate`` is the peer's, as ``SSLObject.getpeercert`` gives it."""
    page = pages.get(path)
    if page is None:
        return Answer(404, b"not found\n")
    if method != "GET":
        return Answer(405, b"only GET\n")
    if not page.public:
        if not certificate:
            return Answer(401, b"a client certificate of this cluster is required\n")
        if not allowed(certificate):
            return Answer(403, b"this client certificate may not read metrics\n")
    try:
        return await page.handler()
    except SphereError as err:  # what it asks is away for now; the next scrape may find it
        return Answer(503, f"{err}\n".encode())


async def _send(writer: asyncio.StreamWriter, answer: Answer, *, keep: bool) -> None:
    head = (
        f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}\r\n"
        f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
        f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n"
    )
    writer.write(head.encode("latin-1") + answer.body)
    await writer.drain()

"""SPDY/3.1 framing without IO: what clients of exec, attach and port-forward speak.

``Connection.receive(bytes)`` returns events; its other methods and the functions return bytes to put on the wire. Only
what these sessions need is acted on: streams opened by the client, data, half-close, resets, pings, go-away.

There are no windows (section 2.6.8). Clients of the Kubernetes API neither keep nor announce them, so a server that
waited for one would wait for ever. What they rely on instead, and what this server gives them, is the connection's own
flow control: who does not read is not sent more, and one stream that is not read holds up the session. Settings and
window updates are accepted and ignored.

Spec: SPDY Protocol draft 3.1, sections 2.2 (framing), 2.6 (control frames), 2.6.10 (name/value header block).
"""

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FRAME_BYTES_MAX: Final = 1 << 20
"""Longer frames are refused before they are buffered."""
HEADERS_BYTES_MAX: Final = 64 << 10
"""Limit of a decompressed header block, so that a small frame cannot become a large memory."""

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
VERSION: Final = 3
FLAG_FIN: Final = 0x01

PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL = 1, 2, 3, 5

_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age "
    "allow authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_NAMES: Final = tuple(word.replace("_", " ") for word in _WORDS.split())
_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 "
    "Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul "
    "Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,"
    "image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,"
    "sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY: Final = b"".join(struct.pack(">I", len(n)) + n.encode() for n in _NAMES) + _TAIL.encode()
"""The zlib dictionary of section 2.6.10.1: 1423 bytes, Adler-32 0xE3C6A7C2."""


class ProtocolError(Exception):
    """The peer broke the framing; the connection cannot go on."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream; names are lower case. ``ended``: it will send no data."""

    stream: int
    headers: Mapping[str, str]
    ended: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes on a stream. ``ended``: the peer's last ones."""

    stream: int
    payload: bytes
    ended: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer tore a stream down."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class Pinged:
    """The peer wants ``reply`` sent back."""

    reply: bytes


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer will open no more streams."""


Event = Opened | Data | Reset | Pinged | GoneAway


class Connection:
    """The server's half of one SPDY session."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._last_opened = 0

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes off the wire, in any split. Raises ``ProtocolError``; the connection is then unusable."""
        self._buffer += data
        events: list[Event] = []
        while len(self._buffer) >= 8:
            word, rest = struct.unpack_from(">II", self._buffer)
            length = rest & 0xFFFFFF
            if length > FRAME_BYTES_MAX:
                raise ProtocolError(f"frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
            if len(self._buffer) < 8 + length:
                break
            payload = bytes(self._buffer[8 : 8 + length])
            del self._buffer[: 8 + length]
            flags = rest >> 24
            if word & 0x80000000:
                event = self._control(word, flags, payload)
                if event is not None:
                    events.append(event)
            else:
                events.append(Data(word, payload, bool(flags & FLAG_FIN)))
        return events

    def _control(self, word: int, flags: int, payload: bytes) -> Event | None:
        version, kind = (word >> 16) & 0x7FFF, word & 0xFFFF
        if version != VERSION:
            raise ProtocolError(f"SPDY version {version}, expected {VERSION}")
        try:
            if kind == SYN_STREAM:
                return self._syn_stream(flags, payload)
            if kind in (SYN_REPLY, HEADERS):
                self._headers(payload[4:])  # keeps the shared compression state in step
                return None
            if kind == RST_STREAM:
                stream, status = struct.unpack(">II", payload)
                return Reset(stream & 0x7FFFFFFF, status)
            if kind == PING:
                (number,) = struct.unpack(">I", payload)
                return Pinged(_control_frame(PING, 0, payload)) if number % 2 else None
        except struct.error as err:
            raise ProtocolError(f"malformed control frame of type {kind}") from err
        return GoneAway() if kind == GOAWAY else None

    def _syn_stream(self, flags: int, payload: bytes) -> Opened:
        stream, _associated, _priority, _slot = struct.unpack_from(">IIBB", payload)
        stream &= 0x7FFFFFFF
        headers = self._headers(payload[10:])
        if stream % 2 == 0 or stream <= self._last_opened:
            raise ProtocolError(f"stream {stream} opened after {self._last_opened}")
        self._last_opened = stream
        return Opened(stream, headers, bool(flags & FLAG_FIN))

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, HEADERS_BYTES_MAX)
        except zlib.error as err:
            raise ProtocolError(f"header block: {err}") from err
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"header block is over the limit of {HEADERS_BYTES_MAX} bytes")
        return _parse_headers(plain)

    def reply(self, stream: int, headers: Mapping[str, str] | None = None, *, end: bool = False) -> bytes:
        """SYN_REPLY: accept a stream the peer opened."""
        block = self._compress(headers or {})
        return _control_frame(SYN_REPLY, FLAG_FIN if end else 0, struct.pack(">I", stream) + block)

    def open(self, stream: int, headers: Mapping[str, str]) -> bytes:
        """SYN_STREAM: what a client sends."""
        return _control_frame(SYN_STREAM, 0, struct.pack(">IIBB", stream, 0, 0, 0) + self._compress(headers))

    def _compress(self, headers: Mapping[str, str]) -> bytes:
        return self._deflate.compress(_pack_headers(headers)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def data(stream: int, payload: bytes, *, end: bool = False) -> bytes:
    """A data frame; ``end`` closes our half of the stream."""
    return struct.pack(">II", stream, (FLAG_FIN if end else 0) << 24 | len(payload)) + payload


def reset(stream: int, status: int) -> bytes:
    """RST_STREAM: tear a stream down."""
    return _control_frame(RST_STREAM, 0, struct.pack(">II", stream, status))


def ping(number: int) -> bytes:
    """PING of our own: ``number`` is even, so that its echo is told from the client's pings."""
    return _control_frame(PING, 0, struct.pack(">I", number))


def go_away(last_stream: int, status: int = 0) -> bytes:
    """GOAWAY: no stream after ``last_stream`` was handled."""
    return _control_frame(GOAWAY, 0, struct.pack(">II", last_stream, status))


def _control_frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">HHI", 0x8000 | VERSION, kind, flags << 24 | len(payload)) + payload


def _pack_headers(headers: Mapping[str, str]) -> bytes:
    out = bytearray(struct.pack(">I", len(headers)))
    for name, value in headers.items():
        for text in (name.lower().encode(), value.encode()):
            out += struct.pack(">I", len(text)) + text
    return bytes(out)


def _parse_headers(plain: bytes) -> dict[str, str]:
    position = 0

    def take(length: int) -> bytes:
        nonlocal position
        piece = plain[position : position + length]
        if len(piece) != length:
            raise ProtocolError("header block is shorter than it says")
        position += length
        return piece

    count = int.from_bytes(take(4), "big")
    headers: dict[str, str] = {}
    for _ in range(count):
        name = take(int.from_bytes(take(4), "big"))
        value = take(int.from_bytes(take(4), "big"))
        try:
            headers[name.decode().lower()] = value.decode()
        except UnicodeDecodeError as err:
            raise ProtocolError("header block is not UTF-8") from err
    return headers

"""One ``grpc.health.v1.Health/Check`` call over a connected stream: the least HTTP/2 that it takes.

A gRPC library cannot be given a socket from another network namespace. Specs: RFC 9113 (frames), RFC 7541 section
6.2.2 (literal header fields), the gRPC health checking protocol.
"""

import asyncio
from typing import Final

SERVING: Final = 1
STATUS_NAMES: Final = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_END_STREAM, _ACK, _END_HEADERS = 0x1, 0x1, 0x4
_PADDED: Final = 0x8
_BODY_BYTES_MAX: Final = 64 << 10


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str, authority: str) -> int | None:
    """The serving status, or None when the call failed. Raises ``OSError`` or ``IncompleteReadError``."""
    headers = b"".join(
        _literal(name, value)
        for name, value in (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("user-agent", "kube-probe/1.36"),
        )
    )
    name = service.encode()
    message = (b"\x0a" + _varint(len(name)) + name) if name else b""
    body = b"\0" + len(message).to_bytes(4, "big") + message
    writer.write(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, body)
    )
    received = b""
    while True:
        head = await reader.readexactly(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if length > _BODY_BYTES_MAX:
            return None
        payload = await reader.readexactly(length)
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind in (_RST, _GOAWAY):
            return None
        elif kind == _DATA:
            received += payload[1 : length - payload[0]] if flags & _PADDED and payload else payload
        if (kind in (_DATA, _HEADERS) and flags & _END_STREAM) or len(received) > _BODY_BYTES_MAX:
            return parse_response(received)


def parse_response(body: bytes) -> int | None:
    """Status in a length-prefixed ``HealthCheckResponse``; an absent field is 0. None when it is malformed."""
    if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return None
    message = body[5:]
    if not message:
        return 0
    if message[0] != 0x08 or len(message) < 2:
        return None
    return message[1] if message[1] < 0x80 else None


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: str, value: str) -> bytes:
    return b"\0" + _short(name) + _short(value)


def _short(text: str) -> bytes:
    raw = text.encode()[:126]  # one length byte
    return bytes((len(raw),)) + raw


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)

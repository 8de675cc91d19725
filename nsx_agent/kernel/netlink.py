"""A small synchronous netlink client: requests with acknowledgement, dumps, attribute encoding.

Sources: rtnetlink(7), netlink(7), include/uapi/linux/netlink.h. A request costs some 20 microseconds, so callers
may run it on the event loop. All integers are host byte order unless a name says ``be``.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

from common.errors import Retryable

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400

NLMSG_NOOP: Final = 1
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF
SOL_NETLINK: Final = 270
NETLINK_ADD_MEMBERSHIP: Final = 1
NETLINK_EXT_ACK: Final = 11
RECEIVE_BYTES: Final = 1 << 20

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


class NetlinkError(Retryable):
    """The kernel refused a request. ``code`` is the errno."""

    def __init__(self, code: int, what: str) -> None:
        super().__init__(f"{what}: {os.strerror(code)}")
        self.code = code


class NetlinkUncertain(NetlinkError):
    """No answer arrived: the request may have been carried out, or not."""


def attribute(kind: int, value: bytes) -> bytes:
    """One padded attribute."""
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + b"\0" * (-size % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(inner))


def u8(value: int) -> bytes:
    return struct.pack("=B", value)


def u16(value: int) -> bytes:
    return struct.pack("=H", value)


def u32(value: int) -> bytes:
    return struct.pack("=I", value)


def text(value: str) -> bytes:
    """A NUL-terminated string."""
    return value.encode() + b"\0"


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Parse attributes from ``offset`` on; the last one of a type wins."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        if size < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + size]
        offset += (size + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, sequence, port id of who asked, body) of each message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        size, kind, _, sequence, port = _HEADER.unpack_from(data, offset)
        if size < 16:
            return
        yield kind, sequence, port, data[offset + 16 : offset + size]
        offset += (size + 3) & ~3


class Netlink:
    """One socket in the network namespace of the thread that made it."""

    def __init__(self, family: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, RECEIVE_BYTES)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.settimeout(5.0)
        self._socket.bind((0, 0))
        self._sequence = 0

    @property
    def port(self) -> int:
        """Port id: who the kernel says asked for a change."""
        return int(self._socket.getsockname()[0])

    def close(self) -> None:
        self._socket.close()

    def request(self, kind: int, flags: int, body: bytes, what: str) -> None:
        """Send one request and wait for its acknowledgement. Raises ``NetlinkError`` naming ``what``."""
        self._send(_message(self._next(), kind, flags | NLM_F_ACK, body), what)
        self._acknowledged(self._sequence, self._sequence, what)

    def get(self, kind: int, body: bytes, what: str) -> bytes:
        """Body of the one object that ``body`` asks for. Raises ``NetlinkError``."""
        self._send(_message(self._next(), kind, 0, body), what)
        while True:
            for answer, sequence, _, data in messages(self._receive(what)):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", data)[0], what)
                return data

    def dump(self, kind: int, body: bytes, what: str) -> list[bytes]:
        """Bodies of all objects. Raises ``NetlinkError``."""
        self._send(_message(self._next(), kind, NLM_F_DUMP, body), what)
        found: list[bytes] = []
        while True:
            for answer, sequence, _, data in messages(self._receive(what)):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    raise NetlinkError(-struct.unpack_from("=i", data)[0], what)
                found.append(data)

    def batch(self, parts: Sequence[tuple[int, int, bytes]], what: str) -> None:
        """Send messages as one datagram, the first and last of them batch marks. Raises ``NetlinkError``.

        For nfnetlink batches: any failure aborts all, and the kernel reports each. Only the last message before the
        closing mark asks for an acknowledgement: thousands of them would overflow the socket.
        """
        first, last = self._sequence + 1, self._sequence + len(parts) - 1
        datagram = bytearray()
        for kind, flags, body in parts:
            sequence = self._next()
            datagram += _message(sequence, kind, flags | (NLM_F_ACK if sequence == last else 0), body)
        self._send(datagram, what)
        self._acknowledged(first, last, what)

    def _acknowledged(self, first: int, last: int, what: str) -> None:
        """Wait for the answer to message ``last``; an error of any since ``first`` is raised."""
        while True:
            for answer, sequence, _, data in messages(self._receive(what)):
                if answer != NLMSG_ERROR or not first <= sequence <= last:
                    continue
                code = -struct.unpack_from("=i", data)[0]
                if code:
                    raise NetlinkError(code, what)
                if sequence == last:
                    return

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _send(self, datagram: bytes | bytearray, what: str) -> None:
        try:
            self._socket.send(datagram)
        except OSError as err:
            raise NetlinkError(err.errno or errno.EIO, what) from err

    def _receive(self, what: str) -> bytes:
        """What has been done is not known if this fails."""
        try:
            return self._socket.recv(RECEIVE_BYTES)
        except OSError as err:
            raise NetlinkUncertain(err.errno or errno.ETIMEDOUT, what) from err


def _message(sequence: int, kind: int, flags: int, body: bytes) -> bytes:
    head = _HEADER.pack(16 + len(body), kind, flags | NLM_F_REQUEST, sequence, 0)
    return head + body + b"\0" * (-len(body) % 4)


def is_absent(err: NetlinkError) -> bool:
    """Whether the object of a delete was not there."""
    return err.code in (errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL)


def is_present(err: NetlinkError) -> bool:
    """Whether the object of a create was there already."""
    return err.code == errno.EEXIST

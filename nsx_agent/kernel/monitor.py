"""Hears changes of nftables that are not ours (nfnetlink, NFNLGRP_NFTABLES)."""

import contextlib
import errno
import socket
import struct
from typing import Final

from nsx_agent.kernel.netlink import (
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_NETFILTER,
    RECEIVE_BYTES,
    SOL_NETLINK,
    attributes,
    messages,
)
from nsx_agent.kernel.ownership import NFT_TABLE

NFNLGRP_NFTABLES: Final = 7
NFNL_SUBSYS_NFTABLES: Final = 10
NFT_MSG_NEWGEN: Final = 15
NFTA_GEN_PROC_PID: Final = 2
NFTA_TABLE: Final = 1
"""First attribute of every nftables message that belongs to a table: its name."""
_NFGEN = struct.Struct("=BBH")


class NftMonitor:
    """A socket to watch; ``read`` says whether somebody else touched our table."""

    def __init__(self, ours: set[int]) -> None:
        self._ours = ours
        self._touched = False
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> bool:
        """Drain the socket. True if our table was changed by a process that is not ours.

        An overflow says nothing: our own large transactions cause it, and the audit compares anyway.
        """
        foreign = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(RECEIVE_BYTES)
                except OSError as err:
                    if err.errno != errno.ENOBUFS:
                        raise
                    self._touched = False
                    continue
                for kind, body in messages(data):
                    foreign |= self._message(kind, body)
        return foreign

    def _message(self, kind: int, body: bytes) -> bool:
        if kind >> 8 != NFNL_SUBSYS_NFTABLES:
            return False
        parsed = attributes(body, _NFGEN.size)
        if kind & 0xFF != NFT_MSG_NEWGEN:
            name = parsed.get(NFTA_TABLE, b"").rstrip(b"\0")
            self._touched |= name == NFT_TABLE.encode()
            return False
        touched, self._touched = self._touched, False
        pid = struct.unpack(">I", parsed.get(NFTA_GEN_PROC_PID, b"\0\0\0\0"))[0]
        own = pid in self._ours
        self._ours.discard(pid)
        return touched and not own

"""The short way into nftables: transactions of single elements, encoded here (nf_tables.h, nfnetlink.h).

An endpoint or a pod that comes or goes is a handful of elements in existing sets. As one netlink batch on an open
socket that takes well under a millisecond; nft, as a process, takes 6 to 60. What is not such a transaction
(structure, intervals) is for nft: ``encode`` then returns None.
"""

import ipaddress
import socket
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from nsx_agent.kernel.netlink import NLM_F_CREATE, attribute, nested, text, u32
from nsx_agent.kernel.ownership import NFT_TABLE
from nsx_agent.model import Change, DropElement, PutElement, SetSpec

Part = tuple[int, int, bytes]
"""Netlink message: type, flags, body."""

NFPROTO_INET: Final = 1
NFNL_SUBSYS_NFTABLES: Final = 10
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM = 12, 14
NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_ELEMENTS = 1, 2, 3
NFTA_LIST_ELEM: Final = 1
NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA, NFTA_SET_ELEM_USERDATA = 1, 2, 6
NFTA_DATA_VALUE, NFTA_DATA_VERDICT = 1, 2
NFTA_VERDICT_CODE, NFTA_VERDICT_CHAIN = 1, 2
UDATA_COMMENT: Final = 0
VERDICTS: Final = {"drop": 0, "accept": 1, "jump": -3, "goto": -4}
PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132}
LIST_BYTES_MAX: Final = 32768
"""An attribute's length is 16 bits."""
_NFGEN = struct.Struct(">BBH")


def encode(
    changes: Sequence[Change], stamp_set: str, stamp: str, spec_of: Callable[[str], SetSpec | None]
) -> list[Part] | None:
    """One batch with ``changes`` and the new stamp, or None if nft has to do it.

    What leaves comes before what joins, so that a set takes one message for each, however the changes alternate.
    """
    leaving: dict[str, list[bytes]] = {}
    joining: dict[str, list[bytes]] = {}
    for change in changes:
        if not isinstance(change, PutElement | DropElement):
            return None
        spec = spec_of(change.set)
        if spec is None or "interval" in spec.flags:
            return None
        key_type, _, data_type = (side.strip() for side in spec.type.partition(":"))
        key = _key(key_type, change.key)
        if isinstance(change, DropElement) or change.replaces is not None:
            leaving.setdefault(change.set, []).append(nested(NFTA_LIST_ELEM, key))
        if isinstance(change, PutElement):
            data = _data(data_type, change.data) if data_type else b""
            joining.setdefault(change.set, []).append(nested(NFTA_LIST_ELEM, key, data))
    return [
        _mark(NFNL_MSG_BATCH_BEGIN),
        *_messages(NFT_MSG_DELSETELEM, leaving),
        *_messages(NFT_MSG_NEWSETELEM, joining),
        *_stamp(stamp_set, stamp),
        _mark(NFNL_MSG_BATCH_END),
    ]


def _messages(kind: int, elements_of: Mapping[str, list[bytes]]) -> Iterator[Part]:
    """As few messages as the length of an attribute allows."""
    for name, elements in elements_of.items():
        run: list[bytes] = []
        size = 0
        for element in elements:
            if size + len(element) > LIST_BYTES_MAX:
                yield _message(kind, name, run)
                run, size = [], 0
            run.append(element)
            size += len(element)
        yield _message(kind, name, run)


def _stamp(name: str, stamp: str) -> list[Part]:
    comment = text(stamp)
    userdata = attribute(NFTA_SET_ELEM_USERDATA, bytes((UDATA_COMMENT, len(comment))) + comment)
    element = nested(NFTA_LIST_ELEM, _key("mark", "1"), userdata)
    # Without elements, a delete empties the set.
    return [_message(NFT_MSG_DELSETELEM, name, []), _message(NFT_MSG_NEWSETELEM, name, [element])]


def _mark(kind: int) -> Part:
    return kind, 0, _NFGEN.pack(socket.AF_UNSPEC, 0, NFNL_SUBSYS_NFTABLES)


def _message(kind: int, name: str, elements: list[bytes]) -> Part:
    body = [
        _NFGEN.pack(NFPROTO_INET, 0, 0),
        attribute(NFTA_SET_ELEM_LIST_TABLE, text(NFT_TABLE)),
        attribute(NFTA_SET_ELEM_LIST_SET, text(name)),
    ]
    if elements:
        body.append(nested(NFTA_SET_ELEM_LIST_ELEMENTS, *elements))
    flags = NLM_F_CREATE if kind == NFT_MSG_NEWSETELEM else 0
    return NFNL_SUBSYS_NFTABLES << 8 | kind, flags, b"".join(body)


def _key(types: str, value: str) -> bytes:
    return nested(NFTA_SET_ELEM_KEY, attribute(NFTA_DATA_VALUE, packed(types, value)))


def _data(types: str, value: str) -> bytes:
    if types != "verdict":
        return nested(NFTA_SET_ELEM_DATA, attribute(NFTA_DATA_VALUE, packed(types, value)))
    verb, _, chain = value.partition(" ")
    verdict = [attribute(NFTA_VERDICT_CODE, struct.pack(">i", VERDICTS[verb]))]
    if chain:
        verdict.append(attribute(NFTA_VERDICT_CHAIN, text(chain)))
    return nested(NFTA_SET_ELEM_DATA, nested(NFTA_DATA_VERDICT, *verdict))


def packed(types: str, value: str) -> bytes:
    """A value as the kernel keeps it: fields of a concatenation are padded to 4 bytes each."""
    kinds, fields = types.split(" . "), value.split(" . ")
    raw = [_field(kind, field) for kind, field in zip(kinds, fields, strict=True)]
    if len(raw) == 1:
        return raw[0]
    return b"".join(field + b"\0" * (-len(field) % 4) for field in raw)


def _field(kind: str, value: str) -> bytes:
    match kind:
        case "ipv4_addr":
            return ipaddress.IPv4Address(value).packed
        case "inet_service":
            return struct.pack(">H", int(value))
        case "inet_proto":
            return bytes((PROTOCOLS[value],))
        case "mark":
            return u32(int(value))
        case "ether_addr":
            return bytes.fromhex(value.replace(":", ""))
        case "ifname":
            return value.strip('"').encode().ljust(16, b"\0")
        case _:
            raise AssertionError(f"no encoding for nft type {kind}")

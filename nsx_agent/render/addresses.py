"""Parsing of what comes over the wire into nft-safe text. Raises ``Terminal`` with the reason."""

import hashlib
import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from common.errors import Terminal

PROTOCOLS = ("tcp", "udp", "sctp")


@lru_cache(maxsize=16384)
def address(value: str) -> str:
    """A strict dotted-quad IPv4 address. Remembered: one new pod has whole sets rendered again."""
    try:
        return str(ipaddress.IPv4Address(value))
    except ValueError as err:
        raise Terminal(f"not an IPv4 address: {value!r:.80}") from err


def cidr(value: str) -> ipaddress.IPv4Network:
    """An IPv4 network without host bits; a bare address is a /32."""
    try:
        return ipaddress.IPv4Network(value)
    except ValueError as err:
        raise Terminal(f"not an IPv4 network: {value!r:.80}") from err


def mac(value: str) -> str:
    """Six hex pairs with colons."""
    pairs = value.lower().split(":")
    if len(pairs) != 6 or any(len(pair) != 2 or not set(pair) <= set("0123456789abcdef") for pair in pairs):
        raise Terminal(f"not a MAC address: {value!r:.80}")
    return ":".join(pairs)


def port(value: int) -> int:
    """1 to 65535."""
    if not 1 <= value <= 65535:
        raise Terminal(f"port {value} is out of range 1-65535")
    return value


def protocol(value: str) -> str:
    """``tcp``, ``udp`` or ``sctp``."""
    lowered = value.lower()
    if lowered not in PROTOCOLS:
        raise Terminal(f"unknown protocol {value!r:.20}; use one of {', '.join(PROTOCOLS)}")
    return lowered


def short_hash(*parts: str) -> str:
    """16 hex digits for names of nft objects (names are limited to 31 characters in places)."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(len(part).to_bytes(4, "big"))
        state.update(part.encode())
    return state.hexdigest()


def subtract(
    networks: Iterable[ipaddress.IPv4Network], excluded: Iterable[ipaddress.IPv4Network]
) -> list[ipaddress.IPv4Network]:
    """``networks`` without ``excluded``, collapsed and sorted."""
    left = list(ipaddress.collapse_addresses(networks))
    for hole in ipaddress.collapse_addresses(excluded):
        kept: list[ipaddress.IPv4Network] = []
        for network in left:
            if hole.supernet_of(network):
                continue
            if network.supernet_of(hole):
                kept.extend(network.address_exclude(hole))
            else:
                kept.append(network)
        left = kept
    return sorted(ipaddress.collapse_addresses(left))

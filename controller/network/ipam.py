"""Addresses: segments take subnets of the pod range, hosts take blocks of a segment, pods take addresses. Pure.

Addresses are integers here. Nothing is recorded: whoever writes the key of a block or a port first has it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

VNI_FIRST = 4096
VNI_LAST = 2**24 - 1


@dataclass(frozen=True, slots=True)
class Cidr:
    """An IPv4 range: ``base`` is its first address."""

    base: int
    prefix: int

    @staticmethod
    def parse(text: str) -> "Cidr":
        """Raises ``ValueError`` for what is not a network address."""
        network = IPv4Network(text)
        return Cidr(int(network.network_address), network.prefixlen)

    def __str__(self) -> str:
        return f"{IPv4Address(self.base)}/{self.prefix}"

    @property
    def size(self) -> int:
        return 1 << (32 - self.prefix)

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.base + self.size

    def parts(self, prefix: int) -> range:
        """Bases of the ranges of length ``prefix`` in it."""
        return range(self.base, self.base + self.size, 1 << (32 - prefix))


def block_of(address: int, prefix: int) -> int:
    """Base of the block of length ``prefix`` that holds ``address``."""
    return address & ~((1 << (32 - prefix)) - 1)


def next_block(subnets: Iterable[Cidr], prefix: int, taken: Collection[int]) -> Cidr | None:
    """The first free block of a segment; None when all are taken."""
    for subnet in subnets:
        for base in subnet.parts(prefix):
            if base not in taken:
                return Cidr(base, prefix)
    return None


def next_address(block: Cidr, used: Collection[int], reserved: Collection[int], after: int | None) -> int | None:
    """The next free address of ``block``, going round from ``after``, so that an address rests as long as can be."""
    start = 0 if after is None or after not in block else after - block.base + 1
    for step in range(block.size):
        address = block.base + (start + step) % block.size
        if address not in used and address not in reserved:
            return address
    return None


def reserved_of(subnets: Iterable[Cidr]) -> frozenset[int]:
    """First and last address of each subnet: legal as /32, but people and tools take them for network and broadcast."""
    return frozenset(address for subnet in subnets for address in (subnet.base, subnet.base + subnet.size - 1))


def next_subnet(pod_range: Cidr, prefix: int, taken: Collection[int]) -> Cidr | None:
    """The first subnet of the pod range that no segment has."""
    return next((Cidr(base, prefix) for base in pod_range.parts(prefix) if base not in taken), None)


def next_vni(taken: Collection[int]) -> int | None:
    """One more than the highest, so that a VNI rests long before its reuse; the lowest free once the top is reached."""
    highest = max(taken, default=VNI_FIRST - 1)
    if highest < VNI_LAST:
        return max(VNI_FIRST, highest + 1)
    return next((vni for vni in range(VNI_FIRST, VNI_LAST + 1) if vni not in taken), None)


def address_text(address: int) -> str:
    return str(IPv4Address(address))


def parse_address(text: str) -> int:
    """Raises ``ValueError``."""
    return int(IPv4Address(text))


def port_name(address: int) -> str:
    """``10-64-0-5``: the name that claims the address."""
    return address_text(address).replace(".", "-")


def block_name(block: Cidr) -> str:
    """``10-64-0-0-28``: the name that claims the block."""
    return str(block).replace(".", "-").replace("/", "-")


def mac_of(address: int) -> str:
    """``02:73`` (locally administered) and the four bytes of the address: unique without being stored anywhere else."""
    return "02:73:" + ":".join(f"{byte:02x}" for byte in address.to_bytes(4, "big"))

"""Which blocks and addresses are taken, from the cache's ports and blocks and from claims still under way."""

from dataclasses import dataclass

from controller.kinds.kind import Object
from controller.network import ipam
from controller.network.ipam import Cidr
from controller.runtime.resources import ADDRESS_BLOCKS, PORTS
from controller.store.cache import Change


@dataclass(frozen=True, slots=True)
class Claim:
    """An address for a pod, and the block to be created with it when the host's blocks are full."""

    address: int
    block: Cidr
    new_block: bool


class AddressBook:
    """Feed it every change of ports and blocks; claims are taken at once and given back when the bind fails."""

    def __init__(self, block_prefix: int) -> None:
        self._prefix = block_prefix
        self._used: dict[int, set[int]] = {}
        self._taken: dict[int, tuple[str, str]] = {}
        self._held: dict[tuple[str, str], dict[int, Cidr]] = {}
        self._last: dict[int, int] = {}
        self._stored: set[int] = set()
        """Bases of blocks whose key is known to exist. A claim from any other block creates it too: first come wins."""

    def on_change(self, change: Change) -> None:
        """Follow ports and blocks. Their names are the claims, so only a new name is ever decoded."""
        entry, gone = change.entry, change.type == "DELETED"
        if entry.resource == PORTS:
            address = ipam.parse_address(entry.name.replace("-", "."))
            (self._release if gone else self._take)(address)
        elif entry.resource == ADDRESS_BLOCKS and (gone or change.old is None):
            spec: Object = entry.decode()["spec"]
            block = Cidr.parse(spec["cidr"])
            (self._drop_block if gone else self._put_block)(block, spec["segment"], spec["host"])
            if not gone:
                self._stored.add(block.base)

    def claim(self, segment: str, subnets: list[Cidr], host: str) -> Claim | None:
        """The next address for a pod on ``host``; None when the segment has no block left."""
        reserved = ipam.reserved_of(subnets)
        for block in sorted(self._held.get((segment, host), {}).values(), key=lambda each: each.base):
            address = ipam.next_address(block, self._used.get(block.base, ()), reserved, self._last.get(block.base))
            if address is not None:
                return self._claimed(Claim(address, block, new_block=block.base not in self._stored))
        fresh = ipam.next_block(subnets, self._prefix, self._taken)
        if fresh is None:
            return None
        address = ipam.next_address(fresh, self._used.get(fresh.base, ()), reserved, None)
        if address is None:
            return None
        self._put_block(fresh, segment, host)
        return self._claimed(Claim(address, fresh, new_block=True))

    def give_back(self, claim: Claim, *, address_taken: bool, block_taken: bool) -> None:
        """A bind failed. What others turned out to have stays taken until the cache says otherwise."""
        if not address_taken:
            self._release(claim.address)
        held = self._taken.get(claim.block.base)
        if claim.new_block and not block_taken and held is not None and claim.block.base not in self._stored:
            self._drop_block(claim.block, *held)

    def has_free_block(self, subnets: list[Cidr]) -> bool:
        """Whether any host can still get a block, so that none of them is exhausted."""
        return ipam.next_block(subnets, self._prefix, self._taken) is not None

    def exhausted(self, segment: str, subnets: list[Cidr], host: str) -> bool:
        """No address for ``host``, without claiming one."""
        reserved = ipam.reserved_of(subnets)
        held = self._held.get((segment, host), {}).values()
        if any(ipam.next_address(b, self._used.get(b.base, ()), reserved, None) is not None for b in held):
            return False
        return ipam.next_block(subnets, self._prefix, self._taken) is None

    def _claimed(self, claim: Claim) -> Claim:
        self._take(claim.address)
        self._last[claim.block.base] = claim.address
        return claim

    def _take(self, address: int) -> None:
        self._used.setdefault(ipam.block_of(address, self._prefix), set()).add(address)

    def _release(self, address: int) -> None:
        base = ipam.block_of(address, self._prefix)
        used = self._used.get(base)
        if used is not None:
            used.discard(address)
            if not used:
                del self._used[base]

    def _put_block(self, block: Cidr, segment: str, host: str) -> None:
        held = self._taken.get(block.base)
        if held is not None and held != (segment, host):
            self._held[held].pop(block.base, None)
        self._taken[block.base] = (segment, host)
        self._held.setdefault((segment, host), {})[block.base] = block

    def _drop_block(self, block: Cidr, segment: str, host: str) -> None:
        self._taken.pop(block.base, None)
        self._stored.discard(block.base)
        self._last.pop(block.base, None)
        self._held.get((segment, host), {}).pop(block.base, None)

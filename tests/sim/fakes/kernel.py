"""A host's kernel in memory: our nft table as entries, routes, pod links. Refuses what the real one refuses.

Held to the real one by ``tests/contract/test_kernel_contract.py``. It reads the same two languages: nft script text and
netlink element messages. Anything it does not know is an error. Rules are kept as text, which
``tests/support/packet_trace.py`` walks.
"""

import random
import re
import socket
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from common.clock import Clock
from common.errors import Retryable
from nsx_agent.kernel import elements, ownership
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.kernel.elements import Part
from nsx_agent.kernel.links import PodLink
from nsx_agent.kernel.netlink import attributes
from nsx_agent.kernel.nft import STAMP_SET, TABLE, Rejected
from nsx_agent.kernel.routes import Seen
from nsx_agent.model import ChainKey, ChainSpec, ElementKey, Key, Route, SetKey, SetSpec, Value

_SET_REFERENCE = re.compile(r"@(\w+)")
_JUMP = re.compile(r"\b(?:goto|jump) (\w+)")
_COMMENT = re.compile(r'^1 comment "([^"]*)"$')
_SIZES = {"ipv4_addr": 4, "inet_service": 2, "inet_proto": 1, "mark": 4, "ether_addr": 6, "ifname": 16}
_PROTOCOL_NAMES = {number: name for name, number in elements.PROTOCOLS.items()}
_VERDICT_NAMES = {number: name for name, number in elements.VERDICTS.items()}


@dataclass
class Table:
    """What our table holds. ``entries`` has sets, chains and elements, as ``nsx_agent.model`` names them."""

    entries: dict[Key, Value] = field(default_factory=dict)
    stamp: str = ""
    counters: set[str] = field(default_factory=set)

    def copy(self) -> "Table":
        return Table(dict(self.entries), self.stamp, set(self.counters))


@dataclass
class KernelOptions:
    """``refuse`` is the probability that nft cannot run at all; delays are upper ends of uniform ranges."""

    delay_s: float = 0.0
    refuse: float = 0.0


class FakeKernel:
    """``nsx_agent.apply.Kernel`` in memory. It outlives the agent; ``power_cut`` empties it."""

    def __init__(self, clock: Clock, rng: random.Random, options: KernelOptions) -> None:
        self._clock = clock
        self._rng = rng
        self.options = options
        self.table: Table | None = None
        self.links: set[str] = set()
        self.routing: dict[tuple[int, str], Route] = {}
        self.observers: list[Callable[[], None]] = []
        """Called after every change of the table."""

    @property
    def entries(self) -> dict[Key, Value]:
        """Sets, chains and elements in force; empty without a table."""
        return self.table.entries if self.table is not None else {}

    def power_cut(self) -> None:
        """Everything in memory is gone."""
        self.table = None
        self.links.clear()
        self.routing.clear()

    # nsx_agent.apply.Kernel

    def prepare(self) -> None:
        self.links.add(ownership.VXLAN_LINK)

    def pod_mtu(self) -> int:
        return 1450

    async def transaction(self, text: str) -> None:
        await self._work()
        table = self.table.copy() if self.table is not None else None
        for line in text.splitlines():
            table = _run(table, line)
        if table is not None:
            _check_references(table)
        self.table = table
        self._changed()
        await self._work()

    async def element_transaction(self, parts: list[Part]) -> None:
        await self._work()
        if self.table is None:
            raise Rejected("change elements: no such file or directory")
        table = self.table.copy()
        for kind, _, body in parts:
            _message(table, kind, body)
        _check_references(table)
        self.table = table
        self._changed()

    async def stamp(self) -> str | None:
        return None if self.table is None else self.table.stamp

    async def counters(self) -> dict[str, int]:
        return dict.fromkeys(sorted(self.table.counters), 0) if self.table is not None else {}

    def put_route(self, route: Route) -> None:
        if route.device.startswith(ownership.LINK_PREFIX) and route.device not in self.links:
            raise Retryable(f"route {route.cidr}: no device {route.device}")
        self.routing[route.table, route.cidr] = route

    def drop_route(self, table: int, cidr: str) -> None:
        self.routing.pop((table, cidr), None)

    def routes(self) -> set[Seen]:
        return {Seen(table, cidr, route.remote) for (table, cidr), route in self.routing.items()}

    def tunnel_ends(self) -> set[str]:
        return {route.remote for route in self.routing.values() if route.remote}

    def pod_links(self) -> set[str]:
        return {name for name in self.links if name.startswith(ownership.LINK_PREFIX)}

    async def ensure_pod_link(self, pod: PodLink) -> None:
        await self._work()
        self.links.add(ownership.link_name(pod.pod_uid))

    async def drop_pod_link(self, name: str) -> None:
        await self._work()
        self.links.discard(name)
        for key in [key for key, route in self.routing.items() if route.device == name]:
            del self.routing[key]

    def flows(self, addresses: frozenset[str], *, udp: bool = False) -> list[Flow]:
        return []

    def drop_flow(self, flow: Flow) -> None:
        """There are none."""

    def close(self) -> None:
        """Nothing is held."""

    async def _work(self) -> None:
        if self.options.delay_s:
            await self._clock.sleep(self._rng.uniform(0, self.options.delay_s))
        if self.options.refuse and self._rng.random() < self.options.refuse:
            raise Retryable("cannot run nft: Resource temporarily unavailable")

    def _changed(self) -> None:
        for observer in self.observers:
            observer()


# ---- nft script ------------------------------------------------------------------------------------------------


def _run(table: Table | None, line: str) -> Table | None:
    verb, _, rest = line.partition(" ")
    kind, _, rest = rest.partition(" ")
    if not rest.startswith(TABLE):
        raise AssertionError(f"not our table: {line}")
    rest = rest.removeprefix(TABLE).strip()
    if (verb, kind) == ("add", "table"):
        return table or Table()
    if table is None:
        raise Rejected(f"no such table: {line}")
    if (verb, kind) == ("delete", "table"):
        return None
    name, _, rest = rest.partition(" ")
    _STATEMENTS[verb, kind](table, name, rest)
    return table


def _add_set(kind: str) -> Callable[[Table, str, str], None]:
    def add(table: Table, name: str, rest: str) -> None:
        found = re.fullmatch(r"\{ type ([^;]+);(?: (.*);)? \}", rest)
        assert found is not None, rest
        spec = SetSpec(kind, found[1], found[2] or "")
        if table.entries.setdefault(SetKey(name), spec) != spec:
            raise Rejected(f"set {name} exists with another type")

    return add


def _add_chain(table: Table, name: str, rest: str) -> None:
    hook = re.fullmatch(r"\{ type (.*); policy accept; \}", rest)
    table.entries.setdefault(ChainKey(name), ChainSpec((), hook[1] if hook else ""))


def _chain(table: Table, name: str) -> ChainSpec:
    spec = table.entries.get(ChainKey(name))
    if not isinstance(spec, ChainSpec):
        raise Rejected(f"no such chain: {name}")
    return spec


def _flush_chain(table: Table, name: str, rest: str) -> None:
    table.entries[ChainKey(name)] = ChainSpec((), _chain(table, name).hook)


def _add_rule(table: Table, name: str, rest: str) -> None:
    spec = _chain(table, name)
    table.entries[ChainKey(name)] = ChainSpec((*spec.rules, rest), spec.hook)


def _delete_chain(table: Table, name: str, rest: str) -> None:
    if _chain(table, name).rules:
        raise Rejected(f"chain {name} still has rules")
    del table.entries[ChainKey(name)]


def _delete_set(table: Table, name: str, rest: str) -> None:
    if SetKey(name) not in table.entries:
        raise Rejected(f"no such set: {name}")
    _empty(table, name)
    del table.entries[SetKey(name)]


def _flush_set(table: Table, name: str, rest: str) -> None:
    if name == STAMP_SET:
        table.stamp = ""
    elif SetKey(name) not in table.entries:
        raise Rejected(f"no such set: {name}")
    _empty(table, name)


def _empty(table: Table, name: str) -> None:
    for key in [key for key in table.entries if isinstance(key, ElementKey) and key.set == name]:
        del table.entries[key]


def _add_counter(table: Table, name: str, rest: str) -> None:
    table.counters.add(name)


def _elements_of(table: Table, name: str, rest: str) -> Iterable[tuple[str, str]]:
    spec = table.entries.get(SetKey(name))
    if not isinstance(spec, SetSpec):
        raise Rejected(f"no such set: {name}")
    for text in rest.removeprefix("{ ").removesuffix(" }").split(", "):
        key, _, data = text.partition(" : ")
        yield key, data


def _add_elements(table: Table, name: str, rest: str) -> None:
    if name == STAMP_SET:
        found = _COMMENT.match(rest.removeprefix("{ ").removesuffix(" }"))
        assert found is not None, rest
        table.stamp = found[1]
        return
    for key, data in _elements_of(table, name, rest):
        _put(table, name, key, data)


def _put(table: Table, name: str, key: str, data: str) -> None:
    if table.entries.setdefault(ElementKey(name, key), data) != data:
        raise Rejected(f"element {key} of {name} exists with other data")


def _delete_elements(table: Table, name: str, rest: str) -> None:
    for key, _ in _elements_of(table, name, rest):
        _remove(table, name, key)


def _remove(table: Table, name: str, key: str) -> None:
    if table.entries.pop(ElementKey(name, key), None) is None:
        raise Rejected(f"no such element: {key} of {name}")


_STATEMENTS: dict[tuple[str, str], Callable[[Table, str, str], None]] = {
    ("add", "set"): lambda table, name, rest: None if name == STAMP_SET else _add_set("set")(table, name, rest),
    ("add", "map"): _add_set("map"),
    ("add", "chain"): _add_chain,
    ("add", "rule"): _add_rule,
    ("add", "counter"): _add_counter,
    ("add", "element"): _add_elements,
    ("delete", "element"): _delete_elements,
    ("delete", "chain"): _delete_chain,
    ("delete", "set"): _delete_set,
    ("flush", "chain"): _flush_chain,
    ("flush", "set"): _flush_set,
}


def _check_references(table: Table) -> None:
    """Every set and chain that a rule or a verdict names must be there at the end of a transaction."""
    for key, value in table.entries.items():
        texts = value.rules if isinstance(value, ChainSpec) else (value,) if isinstance(key, ElementKey) else ()
        for text in texts:
            assert isinstance(text, str)
            for name in _SET_REFERENCE.findall(text):
                if SetKey(name) not in table.entries:
                    raise Rejected(f"{key}: no such set: {name}")
            for name in _JUMP.findall(text):
                if ChainKey(name) not in table.entries:
                    raise Rejected(f"{key}: no such chain: {name}")


# ---- netlink ---------------------------------------------------------------------------------------------------


def _message(table: Table, kind: int, body: bytes) -> None:
    """One message of a batch (linux/netfilter/nf_tables.h)."""
    if kind in (elements.NFNL_MSG_BATCH_BEGIN, elements.NFNL_MSG_BATCH_END):
        return
    found = attributes(body, 4)
    name = found[elements.NFTA_SET_ELEM_LIST_SET].rstrip(b"\0").decode()
    listed = found.get(elements.NFTA_SET_ELEM_LIST_ELEMENTS)
    operation = kind & 0xFF
    if listed is None:
        assert operation == elements.NFT_MSG_DELSETELEM
        _flush_set(table, name, "")
        return
    spec = SetSpec("set", "mark") if name == STAMP_SET else table.entries.get(SetKey(name))
    if not isinstance(spec, SetSpec):
        raise Rejected(f"no such set: {name}")
    key_type, _, data_type = (side.strip() for side in spec.type.partition(":"))
    for raw in _listed(listed):
        parts = attributes(raw)
        key = _unpacked(key_type, attributes(parts[elements.NFTA_SET_ELEM_KEY])[elements.NFTA_DATA_VALUE])
        if name == STAMP_SET:
            table.stamp = parts[elements.NFTA_SET_ELEM_USERDATA][2:].rstrip(b"\0").decode()
        elif operation == elements.NFT_MSG_DELSETELEM:
            _remove(table, name, key)
        else:
            _put(table, name, key, _data(data_type, parts))


def _listed(data: bytes) -> Iterable[bytes]:
    """Elements of a list; all have the same attribute type."""
    offset = 0
    while offset + 4 <= len(data):
        size = struct.unpack_from("=H", data, offset)[0]
        yield data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def _data(data_type: str, parts: dict[int, bytes]) -> str:
    if not data_type:
        return ""
    content = attributes(parts[elements.NFTA_SET_ELEM_DATA])
    if data_type != "verdict":
        return _unpacked(data_type, content[elements.NFTA_DATA_VALUE])
    verdict = attributes(content[elements.NFTA_DATA_VERDICT])
    verb = _VERDICT_NAMES[struct.unpack(">i", verdict[elements.NFTA_VERDICT_CODE])[0]]
    chain = verdict.get(elements.NFTA_VERDICT_CHAIN, b"").rstrip(b"\0").decode()
    return f"{verb} {chain}".strip()


def _unpacked(types: str, raw: bytes) -> str:
    kinds, fields, offset = types.split(" . "), [], 0
    for kind in kinds:
        size = _SIZES[kind]
        fields.append(_field(kind, raw[offset : offset + size]))
        offset += size if len(kinds) == 1 else (size + 3) & ~3
    return " . ".join(fields)


def _field(kind: str, raw: bytes) -> str:
    match kind:
        case "ipv4_addr":
            return socket.inet_ntoa(raw)
        case "inet_service":
            return str(struct.unpack(">H", raw)[0])
        case "inet_proto":
            return _PROTOCOL_NAMES[raw[0]]
        case "mark":
            return str(struct.unpack("=I", raw)[0])
        case "ether_addr":
            return raw.hex(":")
        case _:
            return f'"{raw.rstrip(bytes(1)).decode()}"'

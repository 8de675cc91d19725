"""The agent's vocabulary. Read this first.

Desired items are rendered into **entries**: one entry is the smallest thing the kernel (or DNS) holds that can be
compared. ``Entries`` maps keys to values; ``plan`` compares two of them; a ``Change`` is what makes them equal.

Everything that ends up in nft text is made of parsed addresses, numbers and hashes; no name a user chose gets there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple


class RouteKind(Enum):
    DIRECT = "direct"
    """On-link through ``device``: a local pod, or the service range."""
    TUNNEL = "tunnel"
    """Encapsulated to host ``remote`` in segment ``vni``."""
    BLACKHOLE = "blackhole"


@dataclass(frozen=True, slots=True)
class Route:
    """An IPv4 route of ours. ``source`` is the preferred source address of the host's own packets."""

    cidr: str
    kind: RouteKind
    table: int = 254
    device: str = ""
    source: str = ""
    remote: str = ""
    vni: int = 0


@dataclass(frozen=True, slots=True)
class SetSpec:
    """Declaration of an nft set or map: ``kind`` is ``set`` or ``map``, ``type`` as in nft(8)."""

    kind: str
    type: str
    flags: str = ""


@dataclass(frozen=True, slots=True)
class ChainSpec:
    """Rules of a chain; ``hook`` is empty for a chain that is only jumped to."""

    rules: tuple[str, ...]
    hook: str = ""


# Keys: tuples that live in one dict. Those of the same length differ in a tag, so that no two kinds compare equal.
class SetKey(NamedTuple):
    name: str
    tag: str = "#set"


class ChainKey(NamedTuple):
    name: str
    tag: str = "#chain"


class ElementKey(NamedTuple):
    """``key`` in nft syntax; the value is the map's data in nft syntax, empty for a set."""

    set: str
    key: str


class RouteKey(NamedTuple):
    table: int
    cidr: str
    tag: str = "#route"


class RecordKey(NamedTuple):
    """Owner name of DNS records; the value is a tuple of ``TTL IN TYPE DATA``. ``zone`` is its own redirect zone."""

    name: str
    redirect: bool
    tag: str = "#dns"


Key = SetKey | ChainKey | ElementKey | RouteKey | RecordKey
Value = SetSpec | ChainSpec | str | Route | tuple[str, ...]
Entries = Mapping[Key, Value]


VERDICT_SETS = frozenset({"egress", "ingress"})
"""Maps whose elements isolate a pod: adding one closes, removing one opens."""


class Phase(IntEnum):
    """Order of changes. An interrupted plan may leave a flow closed that should be open, never the reverse."""

    DECLARE_SET = 1
    DECLARE_CHAIN = 2
    """Chains exist, with their rules, before a verdict leads to them."""
    CLOSE = 3
    """Elements that leave allow sets, balancers and ports."""
    ISOLATE = 4
    """Verdicts that lead a pod's traffic into its policies; before anything is opened."""
    OPEN = 5
    """Elements that join allow sets and balancers."""
    ADMIT = 6
    """The port's own anti-spoofing entry: without it the pod cannot send."""
    RELEASE = 7
    """Verdicts that go: the pod is no longer isolated, or no longer here."""
    DROP_CHAIN = 8
    DROP_SET = 9
    ROUTE = 10
    """Last: without a route nothing reaches the pod."""
    RECORD = 11


@dataclass(frozen=True, slots=True)
class PutSet:
    """Legal when no set of that name exists."""

    name: str
    spec: SetSpec


@dataclass(frozen=True, slots=True)
class DropSet:
    """Legal when no rule refers to it."""

    name: str


@dataclass(frozen=True, slots=True)
class PutChain:
    """Legal when every set and chain its rules name exists or is put in the same transaction."""

    name: str
    spec: ChainSpec
    fresh: bool


@dataclass(frozen=True, slots=True)
class DropChain:
    """Legal when no rule and no verdict refers to it."""

    name: str


@dataclass(frozen=True, slots=True)
class PutElement:
    """Legal when the set exists; ``replaces`` is the data it has now, None if the key is new."""

    set: str
    key: str
    data: str
    replaces: str | None = None


@dataclass(frozen=True, slots=True)
class DropElement:
    """Legal when the element is there."""

    set: str
    key: str
    data: str


@dataclass(frozen=True, slots=True)
class PutRoute:
    """Legal when its device exists."""

    route: Route


@dataclass(frozen=True, slots=True)
class DropRoute:
    """Always legal."""

    table: int
    cidr: str


@dataclass(frozen=True, slots=True)
class PutRecord:
    """Always legal; replaces all records of the name."""

    name: str
    redirect: bool
    records: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropRecord:
    """Always legal."""

    name: str
    redirect: bool


Change = (
    PutSet | DropSet | PutChain | DropChain | PutElement | DropElement | PutRoute | DropRoute | PutRecord | DropRecord
)

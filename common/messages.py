"""The wire contract between controller and nsx-agent: MQTT 5 topics and msgpack payloads.

Desired state is published per **scope**, retained. An *item* is one fact (a service, a policy, a port). After the
items of a change comes the scope's retained **manifest**: the revision that the scope now stands at, how many items
it has and their set digest. MQTT has no end-of-snapshot mark; the manifest is it. An agent's view of a scope is
complete when count and digest of what it holds equal the manifest's; only then does it apply, and only then may it
delete. It answers with one retained **watermark** per (host, scope).

The digest is a sum of per-item hashes modulo 2**128, so both sides keep it current in O(1) per changed item and a
manifest does not grow with its scope.

Topics (``sphere/v1`` first)::

    cluster/manifest                     cluster/item/<kind>/<key...>
    ns/<namespace>/manifest              ns/<namespace>/item/<kind>/<key...>
    host/<host>/manifest                 host/<host>/item/<kind>/<key...>
    report/<host>/<scope...>/watermark   agent -> controller: ``Watermark``
    report/<host>/presence               agent -> controller: ``Presence``; the last will says offline

An empty payload on an item topic deletes it, as MQTT does with retained messages.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgpack
import msgspec

from common.errors import Terminal

ROOT: Final = "sphere/v1"
DIGEST_MODULUS: Final = 1 << 128
MESSAGE_BYTES_MAX: Final = 1 << 20
"""Larger payloads are refused by both sides and by the broker (``message_size_limit``)."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of every payload. Unknown fields are ignored: a newer controller may talk to an older agent."""


# ---- scopes and topics ---------------------------------------------------------------------------------------


class Scope(msgspec.Struct, frozen=True, order=True):
    """``cluster``, ``ns/<namespace>`` or ``host/<host>``: unit of subscription, completeness and acknowledgement."""

    path: str

    @staticmethod
    def cluster() -> "Scope":
        return Scope("cluster")

    @staticmethod
    def namespace(name: str) -> "Scope":
        return Scope(f"ns/{name}")

    @staticmethod
    def host(name: str) -> "Scope":
        return Scope(f"host/{name}")

    @property
    def manifest_topic(self) -> str:
        return f"{ROOT}/{self.path}/manifest"

    @property
    def filter(self) -> str:
        """Subscription that covers the manifest and every item."""
        return f"{ROOT}/{self.path}/#"

    def item_topic(self, key: str) -> str:
        """``key`` is ``<kind>/<name>`` or ``<kind>/<namespace>/<name>``."""
        return f"{ROOT}/{self.path}/item/{key}"

    def watermark_topic(self, host: str) -> str:
        return f"{ROOT}/report/{host}/{self.path}/watermark"


def presence_topic(host: str) -> str:
    return f"{ROOT}/report/{host}/presence"


class Address(msgspec.Struct, frozen=True):
    """A parsed desired-state topic. ``key`` is None for the manifest."""

    scope: Scope
    key: str | None


def parse_topic(topic: str) -> Address:
    """Split a desired-state topic. Raises ``Terminal`` for any other topic."""
    parts = topic.removeprefix(f"{ROOT}/").split("/")
    size = 1 if parts[0] == "cluster" else 2
    scope, rest = Scope("/".join(parts[:size])), parts[size:]
    if parts[0] in ("cluster", "ns", "host") and rest == ["manifest"]:
        return Address(scope, None)
    if parts[0] in ("cluster", "ns", "host") and len(rest) >= 3 and rest[0] == "item":
        return Address(scope, "/".join(rest[1:]))
    raise Terminal(f"not a desired-state topic: {topic}")


# ---- items: cluster scope ------------------------------------------------------------------------------------


class HostItem(Message, frozen=True, kw_only=True):
    """``host/<name>``: a member of the overlay. ``underlay`` is the tunnel's outer IPv4 address."""

    name: str
    underlay: str
    alive: bool = True
    """False once its last will was seen: its endpoints leave every load balancer, its routes stay."""


class BlockItem(Message, frozen=True, kw_only=True):
    """``block/<cidr with - for />``: addresses of one segment that live on one host."""

    cidr: str
    vni: int
    host: str
    namespace: str


class Backend(Message, frozen=True, kw_only=True):
    """One endpoint of a service port. ``host`` is empty for an address outside the cluster's pods."""

    address: str
    port: int
    host: str = ""
    fallback: bool = False
    """It is on its way out and gets new connections only where a local traffic policy leaves nobody else."""


class ServicePort(Message, frozen=True, kw_only=True):
    """``backends`` are those that may get new connections, sorted by (address, port)."""

    name: str = ""
    protocol: str
    """``tcp``, ``udp`` or ``sctp``."""
    port: int
    node_port: int = 0
    backends: tuple[Backend, ...] = ()


class DnsName(Message, frozen=True, kw_only=True):
    """A host name under the service's name, or the service's own addresses when ``label`` is empty."""

    label: str = ""
    addresses: tuple[str, ...]


class ServiceItem(Message, frozen=True, kw_only=True):
    """``service/<namespace>/<name>``: everything the load balancer and DNS of a host need to know."""

    namespace: str
    name: str
    cluster_ip: str = ""
    """Empty for headless and ExternalName services."""
    external_name: str = ""
    ports: tuple[ServicePort, ...] = ()
    names: tuple[DnsName, ...] = ()
    """Answers of ``<name>.<namespace>.svc``: for a headless service its ready pods."""
    affinity_s: int = 0
    """ClientIP session affinity timeout; 0 is none."""
    internal_local: bool = False
    external_local: bool = False


class HostPort(Message, frozen=True, kw_only=True):
    """A port of a host that leads to a port of a pod. ``host_address`` is empty for every address of the host."""

    protocol: str
    """``tcp``, ``udp`` or ``sctp``."""
    host_port: int
    pod_port: int
    host_address: str = ""


class HostPortsItem(Message, frozen=True, kw_only=True):
    """``hostports/<pod uid>``: what a pod has on its host's address.

    ``address`` is the pod's. Empty (a pod on the host's own network): the ports are the host's own, and pods may
    reach them, as they may reach other pods.
    """

    pod_uid: str
    host: str
    address: str = ""
    ports: tuple[HostPort, ...]


# ---- items: namespace scope ----------------------------------------------------------------------------------


class AddressSetItem(Message, frozen=True, kw_only=True):
    """``set/<id>``: addresses that a selector stands for now, or the CIDRs of an ipBlock. Sorted.

    ``id`` is a hash of the selector, so policies share sets. For an ipBlock, ``excluded`` is its ``except``.
    """

    id: str
    members: tuple[str, ...]
    excluded: tuple[str, ...] = ()


class PolicyPort(Message, frozen=True, kw_only=True):
    """Destination ports a rule allows. ``port`` 0 is every port; ``end_port`` 0 is none.

    A named port is resolved by the planner into ``pairs`` of (destination address, port); then ``port`` is -1.
    """

    protocol: str
    port: int = 0
    end_port: int = 0
    pairs: tuple[tuple[str, int], ...] = ()


class PolicyRule(Message, frozen=True, kw_only=True):
    """Traffic allowed when any of ``sets`` holds the peer and any of ``ports`` the destination port.

    ``any_peer`` stands for an absent ``from``/``to``; empty ``sets`` without it match nobody.
    Empty ``ports`` match all.
    """

    any_peer: bool = False
    sets: tuple[str, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


class PolicyItem(Message, frozen=True, kw_only=True):
    """``policy/<name>``: one NetworkPolicy with its selectors resolved to sets.

    ``ingress``/``egress`` None means the policy does not isolate that direction; an empty tuple isolates it and
    allows nothing.
    """

    namespace: str
    name: str
    uid: str
    selected: str
    """Id of the ``AddressSetItem`` with the addresses of the pods it selects."""
    ingress: tuple[PolicyRule, ...] | None = None
    egress: tuple[PolicyRule, ...] | None = None


# ---- items: host scope ---------------------------------------------------------------------------------------


class PortItem(Message, frozen=True, kw_only=True):
    """``port/<pod uid>``: the network port of a pod bound to this host."""

    pod_uid: str
    namespace: str
    name: str
    address: str
    mac: str
    vni: int
    strict: bool = False
    """The namespace's answer to a barrier that timed out: True keeps waiting, False goes on (``available``)."""
    cleared: bool = False
    """Every live host in the span has realized what it must know of this pod: its containers may start."""
    drained: bool = False
    """Every live host has forgotten this pod as a backend: its containers may get SIGTERM."""


class InterestItem(Message, frozen=True, kw_only=True):
    """``interest/namespaces``: the namespace scopes this host must hold. Sorted."""

    namespaces: tuple[str, ...]


Item = HostItem | BlockItem | ServiceItem | HostPortsItem | AddressSetItem | PolicyItem | PortItem | InterestItem

ITEM_TYPES: Final[dict[str, type[Message]]] = {
    "host": HostItem,
    "block": BlockItem,
    "service": ServiceItem,
    "hostports": HostPortsItem,
    "set": AddressSetItem,
    "policy": PolicyItem,
    "port": PortItem,
    "interest": InterestItem,
}


# ---- manifest and reports ------------------------------------------------------------------------------------


class Manifest(Message, frozen=True, kw_only=True):
    """What a complete scope looks like. ``epoch`` is the etcd cluster id: revisions compare only within one."""

    epoch: str
    revision: int
    """The newest desired-state revision whose effect on this scope is contained in it."""
    count: int
    digest: bytes
    """16 bytes, big endian: ``set_digest`` of the scope's items."""
    changed_at: float
    """Seconds since the epoch when the API accepted the newest change, for the API-to-kernel latency histogram."""


class Failure(Message, frozen=True, kw_only=True):
    """An item that could not be put in force. The rest of its scope is."""

    key: str
    reason: str


class Watermark(Message, frozen=True, kw_only=True):
    """All of ``scope`` up to ``revision`` is in this host's kernel, but for ``failures``."""

    host: str
    scope: str
    epoch: str
    revision: int
    digest: bytes
    committed_at: float
    """Seconds since the epoch, right after the kernel's commit."""
    failures: tuple[Failure, ...] = ()


class Presence(Message, frozen=True, kw_only=True):
    """Whether a host's agent is connected. The broker publishes the offline one (last will)."""

    host: str
    online: bool
    version: str = ""


M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """msgpack map of the message; defaults are left out only where msgspec omits them (never): stable bytes."""
    packed: bytes = msgpack.packb(msgspec.to_builtins(message, builtin_types=(bytes,)))
    return packed


def decode(payload: bytes, into: type[M]) -> M:
    """Parse and validate ``payload``. Raises ``Terminal`` naming what is wrong; never anything else."""
    if len(payload) > MESSAGE_BYTES_MAX:
        raise Terminal(f"{into.__name__}: {len(payload)} bytes is over the limit of {MESSAGE_BYTES_MAX}")
    try:
        raw: Any = msgpack.unpackb(payload, strict_map_key=True, use_list=True)
        return msgspec.convert(raw, into, builtin_types=(bytes,))
    except (ValueError, TypeError, msgpack.UnpackException, msgspec.ValidationError) as err:
        raise Terminal(f"{into.__name__}: {err}") from err


def decode_item(key: str, payload: bytes) -> Message:
    """Parse an item by the kind its key begins with. Raises ``Terminal``."""
    kind = key.partition("/")[0]
    into = ITEM_TYPES.get(kind)
    if into is None:
        raise Terminal(f"unknown item kind {kind!r} in {key}")
    return decode(payload, into)


# ---- set digest ----------------------------------------------------------------------------------------------


def item_hash(key: str, payload: bytes) -> int:
    """128-bit hash of one item, the summand of a set digest."""
    name = key.encode()
    state = hashlib.blake2b(len(name).to_bytes(4, "big"), digest_size=16)
    state.update(name)
    state.update(payload)
    return int.from_bytes(state.digest(), "big")


def set_digest(hashes: Iterable[int]) -> bytes:
    """Digest of a set of items: the sum of their hashes modulo 2**128, as 16 bytes. Empty set: zeros."""
    return (sum(hashes) % DIGEST_MODULUS).to_bytes(16, "big")

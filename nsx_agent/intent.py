"""Items of all scopes, decoded and rendered piece by piece. Pure but for its own memory.

A change of one item renders the fragments that depend on it and nothing else:

    host, service, block, hostports, port item -> its own fragment
    any item of a namespace, or a port of it here -> that namespace's firewall
    any service -> services that are names of others
    a host that died or moved -> all services, all blocks, all host ports
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from common.errors import Terminal
from common.messages import (
    AddressSetItem,
    BlockItem,
    Failure,
    HostItem,
    HostPortsItem,
    InterestItem,
    Message,
    PolicyItem,
    PortItem,
    Scope,
    ServiceItem,
    decode_item,
)
from nsx_agent.compose import Composite
from nsx_agent.model import Key, RecordKey, Value
from nsx_agent.render import firewall, overlay, records, services, skeleton
from nsx_agent.render.firewall import NamespaceFirewall
from nsx_agent.render.skeleton import Site

M = TypeVar("M", bound=Message)
SKELETON_OWNER = "#skeleton"


@dataclass(slots=True)
class Scoped:
    """Decoded items of one scope, by kind and key, and what is wrong with it."""

    items: dict[str, dict[str, Message]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    """Item key -> why its payload was refused."""

    def of(self, kind: str, into: type[M]) -> dict[str, M]:
        return {key: item for key, item in self.items.get(kind, {}).items() if isinstance(item, into)}


class Intent:
    """Desired items in, entries out. ``entries`` of ``composite`` is what should be in force."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.composite = Composite()
        self.slots: dict[str, dict[str, tuple[str, ...]]] = {}
        self._scopes: dict[str, Scoped] = {}
        self._aliases: set[str] = set()
        """Owners of services that are names of other services."""
        self._dirty: set[str] = set()
        self._render_failures: dict[str, tuple[Failure, ...]] = {}
        self.composite.replace(SKELETON_OWNER, skeleton.render(site) | services.standing())

    # ---- input ------------------------------------------------------------------------------------------------

    def change(self, path: str, changes: Mapping[str, bytes | None]) -> None:
        """Items of a complete scope changed (None: gone). A payload that does not decode leaves the old item."""
        scope = self._scopes.get(path)
        if scope is None:
            scope = self._scopes[path] = Scoped()
            if path.startswith("ns/"):
                self._dirty.add(path)
        for key in sorted(changes):
            payload, kind = changes[key], key.partition("/")[0]
            items = scope.items.setdefault(kind, {})
            old = items.get(key)
            scope.bad.pop(key, None)
            if payload is None:
                items.pop(key, None)
            else:
                try:
                    items[key] = decode_item(key, payload)
                except Terminal as err:
                    scope.bad[key] = str(err)
                    continue
            self._mark(path, kind, key, old, items.get(key))

    def forget(self, path: str) -> None:
        """This host has no business with a namespace any more."""
        self._scopes.pop(path, None)
        self._dirty.add(path)

    def _mark(self, path: str, kind: str, key: str, old: Message | None, new: Message | None) -> None:
        if path.startswith("ns/"):
            self._dirty.add(path)
            return
        self._dirty.add(f"{path}:{key}")
        if kind == "host":
            for dependent in ("service", "block", "hostports"):
                self._dirty.update(f"{path}:{one}" for one in self._scope(path).items.get(dependent, {}))
        if kind == "service":
            self._aliases.discard(f"{path}:{key}")
            if isinstance(new, ServiceItem) and records.is_alias(new, self.site.domain):
                self._aliases.add(f"{path}:{key}")
            self._dirty |= self._aliases
        if kind == "port":
            self._dirty.update(Scope.namespace(one.namespace).path for one in (old, new) if isinstance(one, PortItem))

    # ---- questions --------------------------------------------------------------------------------------------

    def _scope(self, path: str) -> Scoped:
        return self._scopes.get(path) or Scoped()

    @property
    def host_path(self) -> str:
        return Scope.host(self.site.host).path

    def ports(self) -> dict[str, PortItem]:
        """Ports of this host by pod uid."""
        return {item.pod_uid: item for item in self._scope(self.host_path).of("port", PortItem).values()}

    def port(self, pod_uid: str) -> PortItem | None:
        item = self._scope(self.host_path).items.get("port", {}).get(f"port/{pod_uid}")
        return item if isinstance(item, PortItem) else None

    def host_addresses(self) -> frozenset[str]:
        """Underlay addresses of all hosts, this one too: where node ports are."""
        hosts = self._scope(Scope.cluster().path).of("host", HostItem).values()
        return frozenset({self.site.underlay_address, *(host.underlay for host in hosts)})

    def local_namespaces(self) -> frozenset[str]:
        """Namespaces of the pods here."""
        return frozenset(port.namespace for port in self.ports().values())

    def interest(self) -> tuple[str, ...]:
        """Namespaces this host must hold."""
        items = self._scope(self.host_path).of("interest", InterestItem).values()
        return tuple(sorted({name for item in items for name in item.namespaces}))

    def knows_namespace(self, namespace: str) -> bool:
        """Whether the namespace's scope was complete once."""
        return Scope.namespace(namespace).path in self._scopes

    def firewall(self, namespace: str) -> NamespaceFirewall:
        """All that decides about a namespace's pods here."""
        path = Scope.namespace(namespace).path
        scope = self._scope(path)
        sets = scope.of("set", AddressSetItem)
        return NamespaceFirewall(
            namespace=namespace,
            complete=path in self._scopes,
            sets={item.id: item for item in sets.values()},
            policies=scope.of("policy", PolicyItem),
            local=tuple(sorted(port.address for port in self.ports().values() if port.namespace == namespace)),
        )

    def failures(self, path: str) -> tuple[Failure, ...]:
        """What of a scope is not in force, sorted by key."""
        found = dict(self._scope(path).bad)
        for owner, failures in self._render_failures.items():
            if owner == path or owner.startswith(f"{path}:"):
                found |= {failure.key: failure.reason for failure in failures}
        for owner, winner, disputed in self.composite.disputes():
            # Several names of one address are no conflict, though only one can be asked for by address.
            if owner.startswith(f"{path}:") and not isinstance(disputed, RecordKey):
                what = " ".join(str(part) for part in disputed if not str(part).startswith("#"))
                found[owner.partition(":")[2]] = f"{winner.partition(':')[2]} has {what} already"
        return tuple(Failure(key=key, reason=found[key]) for key in sorted(found))

    # ---- rendering --------------------------------------------------------------------------------------------

    def render(self) -> tuple[set[Key], frozenset[str]]:
        """Render what is dirty. Returns keys that may have changed and namespaces whose firewall was rendered."""
        touched: set[Key] = set()
        namespaces: set[str] = set()
        for owner in sorted(self._dirty):
            if owner.startswith("ns/"):
                namespaces.add(owner.removeprefix("ns/"))
                fragment, failures = firewall.render(self.firewall(owner.removeprefix("ns/")))
            else:
                try:
                    fragment, failures = self._item(owner), ()
                except Terminal as err:
                    failures = (Failure(key=owner.partition(":")[2], reason=str(err)),)
                    self._render_failures[owner] = failures
                    continue  # what was in force for this item stays in force
            if failures:
                self._render_failures[owner] = failures
            else:
                self._render_failures.pop(owner, None)
            touched |= self.composite.replace(owner, fragment)
        self._dirty.clear()
        return touched, frozenset(namespaces)

    def _item(self, owner: str) -> dict[Key, Value]:
        path, _, key = owner.partition(":")
        item = self._scope(path).items.get(key.partition("/")[0], {}).get(key)
        match item:
            case HostItem():
                return overlay.host(item, self.site)
            case BlockItem():
                host = self._hosts(path).get(item.host)
                return overlay.block(item, None if host is None else host.underlay, self.site)
            case HostPortsItem():
                host = self._hosts(path).get(item.host)
                return overlay.host_ports(item, None if host is None else host.underlay, self.site)
            case PortItem():
                return overlay.port(item)
            case ServiceItem():
                dead = frozenset(host.name for host in self._hosts(path).values() if not host.alive)
                slots = services.slots_of(item, self.slots.get(key, {}), dead, self.site.host)
                others = self._scope(path).of("service", ServiceItem) if item.external_name else {}
                fragment = services.render(item, slots) | records.render(item, self.site.domain, others)
                self.slots[key] = slots
                return fragment
            case _:
                self.slots.pop(key, None)
                return {}

    def _hosts(self, path: str) -> Mapping[str, HostItem]:
        return {item.name: item for item in self._scope(path).of("host", HostItem).values()}

"""Who must know: which hosts hold which scopes. Pure.

Every host holds the cluster scope and its own host scope. A host holds a namespace's scope while it has a port of that
namespace; a quarantined port counts, so that the scope outlives short gaps between pods.
"""

from collections.abc import Iterable

from common.messages import InterestItem
from controller.network.views import PortView


class Span:
    """Ports per (host, namespace), kept current port by port."""

    def __init__(self) -> None:
        self._ports: dict[str, dict[str, set[str]]] = {}
        self._hosts: dict[str, set[str]] = {}

    def add(self, port: PortView) -> bool:
        """True if the host's interest changed."""
        names = self._ports.setdefault(port.host, {}).setdefault(port.namespace, set())
        names.add(port.name)
        self._hosts.setdefault(port.namespace, set()).add(port.host)
        return len(names) == 1

    def remove(self, port: PortView) -> bool:
        """True if the host's interest changed."""
        namespaces = self._ports.get(port.host, {})
        names = namespaces.get(port.namespace, set())
        names.discard(port.name)
        if names or port.namespace not in namespaces:
            return False
        del namespaces[port.namespace]
        if not namespaces:
            del self._ports[port.host]
        hosts = self._hosts[port.namespace]
        hosts.discard(port.host)
        if not hosts:
            del self._hosts[port.namespace]
        return True

    def hosts(self, namespace: str) -> frozenset[str]:
        """Hosts that hold the namespace's scope."""
        return frozenset(self._hosts.get(namespace, ()))

    def namespaces(self, host: str) -> frozenset[str]:
        return frozenset(self._ports.get(host, ()))

    def held(self) -> Iterable[str]:
        """Namespaces that some host holds."""
        return self._hosts.keys()


def interest(namespaces: Iterable[str]) -> InterestItem:
    return InterestItem(namespaces=tuple(sorted(namespaces)))

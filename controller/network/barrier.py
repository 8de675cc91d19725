"""When a pod's containers may start (``cleared``) and when they may be stopped (``drained``). No IO, no clock.

Cleared: its namespace's policies on its own host, and its membership in sets and its address block on every other
live host that must know, are in force. The port itself on its own host is the agent's own business. Drained: no
service wants the pod as a backend any more, and every live host has realized that. Both are bounded by the timeouts of
agent and spherelet, so a silent host delays but never stops a pod. A flag once set stays: hosts that come later must
catch up before they count.
"""

from collections.abc import Callable

from common.messages import Scope
from controller.network.planner import CLUSTER, Planner
from controller.network.realization import Realization


class Barrier:
    """Flags of ports. ``block_revision(host, namespace)``: newest revision of the address blocks there."""

    def __init__(self, planner: Planner, realization: Realization, block_revision: Callable[[str, str], int]) -> None:
        self._planner = planner
        self._realization = realization
        self._block_revision = block_revision
        self._starting: dict[str, int] = {}
        self._stopping: dict[str, int | None] = {}

    def bound(self, uid: str, revision: int) -> None:
        """The pod got its port at ``revision``."""
        if not self._planner.is_cleared(uid):
            self._starting.setdefault(uid, revision)

    def deleting(self, uid: str) -> None:
        """The pod is to be stopped."""
        if not self._planner.is_drained(uid):
            self._stopping.setdefault(uid, None)

    def waiting(self) -> tuple[int, int]:
        """How many pods wait to start and to stop."""
        return len(self._starting), len(self._stopping)

    def evaluate(self) -> None:
        """Set the flags that have become true. To be called after each pass and each report."""
        for uid, revision in list(self._starting.items()):
            if uid not in self._planner.ports or uid not in self._planner.pods:
                if self._realization.covered(revision):
                    del self._starting[uid]
            elif self._may_start(uid, revision):
                del self._starting[uid]
                self._planner.set_port_state(uid, cleared=True, drained=self._planner.is_drained(uid))
        for uid in list(self._stopping):
            if uid not in self._planner.ports or uid not in self._planner.pods:
                del self._stopping[uid]
            elif self._may_stop(uid):
                del self._stopping[uid]
                self._planner.set_port_state(uid, cleared=self._planner.is_cleared(uid), drained=True)

    def _may_start(self, uid: str, revision: int) -> bool:
        port = self._planner.ports[uid]
        own = Scope.namespace(port.namespace)
        if not self._realization.host_reached(port.host, own, revision):
            return False
        scopes = {own, *(Scope.namespace(name) for name in self._planner.sets.namespaces_knowing(uid))}
        if not self._realization.reached(scopes, revision):
            return False
        block = min(revision, self._block_revision(port.host, port.namespace))
        return self._realization.reached((CLUSTER,), block)

    def _may_stop(self, uid: str) -> bool:
        if self._planner.wanted_as_backend(self._planner.ports[uid].address):
            self._stopping[uid] = None
            return False
        token = self._stopping[uid]
        if token is None:
            token = self._stopping[uid] = self._realization.latest(CLUSTER)
        return self._realization.all_confirmed(CLUSTER, token)

"""After a commit: the running flows it left behind, found in connection tracking and deleted one by one.

Two reasons: a UDP flow that would go on to an endpoint that is no backend any more, and a flow that the policies
forbid now. Everything else is left alone. TCP that loses its entry stops at once, since no flow may be picked up
from its middle (``nf_conntrack_tcp_loose`` is 0).
"""

from collections.abc import Iterable

from common.logs import logger
from nsx_agent import flows
from nsx_agent.apply import Kernel
from nsx_agent.flows import Verdicts
from nsx_agent.intent import Intent
from nsx_agent.model import Change, DropElement, PutElement

log = logger("cuts")
BACKEND_MAPS = frozenset({"slots", "stickers"})
NODE_MAPS = frozenset({"nodeslots", "nodestickers"})


def cut_flows(kernel: Kernel, intent: Intent, done: Iterable[Change], namespaces: frozenset[str]) -> int:
    """Delete what ``done`` left behind. Returns how many flows."""
    done = tuple(done)
    removed, fresh = balancer_changes(done)
    verdicts: dict[str, Verdicts] = {}
    for namespace in sorted(namespaces):
        firewall = intent.firewall(namespace)
        if firewall.complete and not firewall.policies:
            continue  # nobody in it is isolated, so nothing is forbidden
        if not firewall.complete and new_ports(done).issuperset(firewall.local):
            continue  # none of these pods has a route yet, and none gets one before the namespace is complete
        judge = Verdicts(firewall)
        verdicts |= dict.fromkeys(firewall.local, judge)
    if not removed and not fresh and not verdicts:
        return 0
    backends = frozenset(backend for _, backend, _ in removed)
    running = kernel.flows(backends | fresh | verdicts.keys())
    condemned = flows.orphaned(running, removed, fresh)
    condemned += flows.forbidden(running, verdicts, frozenset({intent.site.dns_address}))
    for flow in condemned:
        kernel.drop_flow(flow)
    if condemned:
        log.info("cut flows", flows=len(condemned))
    return len(condemned)


def balancer_changes(done: Iterable[Change]) -> tuple[frozenset[tuple[str, str, int]], frozenset[str]]:
    """UDP backends that left, as (service address or empty, backend, port), and UDP service addresses that are new."""
    before: set[tuple[str, str, int]] = set()
    after: set[tuple[str, str, int]] = set()
    fresh: set[str] = set()
    for change in done:
        if not isinstance(change, PutElement | DropElement):
            continue
        if change.set == "services" and isinstance(change, PutElement) and change.replaces is None:
            address, protocol, _ = change.key.split(" . ")
            if protocol == "udp":
                fresh.add(address)
        if change.set not in BACKEND_MAPS | NODE_MAPS or " udp . " not in f" {change.key}":
            continue
        service = change.key.split(" . ")[0] if change.set in BACKEND_MAPS else ""
        if isinstance(change, PutElement):
            after.add(_backend(service, change.data))
            if change.replaces is not None:
                before.add(_backend(service, change.replaces))
        else:
            before.add(_backend(service, change.data))
    return frozenset(before - after), frozenset(fresh)


def new_ports(done: Iterable[Change]) -> frozenset[str]:
    """Addresses of local pods whose port was not in force before ``done``."""
    put = (change for change in done if isinstance(change, PutElement) and change.set == "ports")
    return frozenset(change.key.rpartition(" . ")[2] for change in put if change.replaces is None)


def _backend(service: str, data: str) -> tuple[str, str, int]:
    address, port = data.split(" . ")
    return service, address, int(port)

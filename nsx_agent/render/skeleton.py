"""What the table holds before any item: hooks, shared sets and the order in which a packet meets them.

prerouting  raw      screen     anti-spoofing, tunnel peers
            mangle   return_path answers to other hosts go back through the tunnel
            dstnat   balance    services, node ports, host ports
output      dstnat   balance    the host's own connections
forward     filter   forward    established, then egress policy -> arrive: ingress policy
input       filter   input      pods to this host: DNS, services, nothing else
output      filter   output     this host to its pods: ingress policy
postrouting srcnat   translate  pods to the outside, hairpins
"""

from dataclasses import dataclass
from typing import Final

from nsx_agent.kernel import ownership
from nsx_agent.model import ChainKey, ChainSpec, Key, Route, RouteKey, RouteKind, SetKey, SetSpec, Value

VERSION: Final = 3
"""Raise when rendering of the same items changes: a restarted agent then replaces the table instead of adopting it."""

COUNTERS: Final = ("spoofed", "foreign_tunnel", "denied_egress", "denied_ingress", "denied_host", "invalid", "refused")
"""Named counters of dropped packets, one per reason."""

SETS: Final = {
    "hosts": SetSpec("set", "ipv4_addr"),
    "ports": SetSpec("set", "ifname . ether_addr . ipv4_addr"),
    "hairpin": SetSpec("set", "ipv4_addr . ipv4_addr"),
    "egress": SetSpec("map", "ipv4_addr : verdict"),
    "ingress": SetSpec("map", "ipv4_addr : verdict"),
    "services": SetSpec("map", "ipv4_addr . inet_proto . inet_service : verdict"),
    "slots": SetSpec("map", "ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service"),
    "nodeports": SetSpec("map", "inet_proto . inet_service : verdict"),
    "nearports": SetSpec("map", "inet_proto . inet_service : verdict"),
    "nodeslots": SetSpec("map", "inet_proto . inet_service . mark : ipv4_addr . inet_service"),
    "sticky": SetSpec("map", "ipv4_addr . inet_proto . inet_service . mark : mark"),
    "stickers": SetSpec("map", "ipv4_addr . inet_proto . inet_service . mark : ipv4_addr . inet_service"),
    "nodesticky": SetSpec("map", "inet_proto . inet_service . mark : mark"),
    "nodestickers": SetSpec("map", "inet_proto . inet_service . mark : ipv4_addr . inet_service"),
    "closedports": SetSpec("set", "inet_proto . inet_service"),
    "hostports": SetSpec("map", "ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service"),
    "ownports": SetSpec("map", "inet_proto . inet_service : ipv4_addr . inet_service"),
    "openports": SetSpec("set", "ipv4_addr . inet_proto . inet_service"),
    "affinity": SetSpec(
        "map",
        "ipv4_addr . ipv4_addr . inet_proto . inet_service : mark",
        "flags dynamic,timeout; size 65536; timeout 3h",
    ),
}


@dataclass(frozen=True, slots=True)
class Site:
    """Facts of this host that rendering needs. All addresses are parsed already."""

    host: str
    underlay_address: str
    underlay_device: str
    pod_cidr: str
    service_cidr: str
    dns_address: str
    domain: str


def render(site: Site) -> dict[Key, Value]:
    """Entries that are always there."""
    entries: dict[Key, Value] = {SetKey(name): spec for name, spec in SETS.items()}
    entries |= {ChainKey(name): spec for name, spec in (_policy_chains(site) | _hooks(site)).items()}
    for route in _routes(site):
        entries[RouteKey(route.table, route.cidr)] = route
    return entries


def _hooks(site: Site) -> dict[str, ChainSpec]:
    pods, services, dns, own = site.pod_cidr, site.service_cidr, site.dns_address, site.underlay_address
    pod_side, tunnel = f'iifname "{ownership.LINK_PREFIX}*"', f'"{ownership.VXLAN_LINK}"'
    towards = f'oifname "{ownership.LINK_PREFIX}*"'
    return {
        "screen": ChainSpec(
            (
                f"{pod_side} meta nfproto ipv6 counter name spoofed drop",
                f"{pod_side} iifname . ether saddr . ip saddr != @ports counter name spoofed drop",
                f'iifname "{site.underlay_device}" ip saddr {pods} counter name spoofed drop',
                f"iifname {tunnel} ip saddr != {pods} ip saddr != @hosts counter name foreign_tunnel drop",
                "udp dport 4789 fib daddr type local ip saddr != @hosts counter name foreign_tunnel drop",
            ),
            "filter hook prerouting priority raw",
        ),
        "return_path": ChainSpec(
            (f"{pod_side} ct direction reply ct original ip saddr @hosts meta mark set {ownership.HOST_MARK}",),
            "filter hook prerouting priority mangle",
        ),
        "balance": ChainSpec((f"{pod_side} jump near", "jump balancer"), "nat hook prerouting priority dstnat"),
        # What a host asks of 127.0.0.1 cannot be answered by a pod.
        "balance_own": ChainSpec(
            ("ip saddr 127.0.0.0/8 return", "jump near", "jump balancer"), "nat hook output priority -100"
        ),
        "forward": ChainSpec(
            (
                "ct state established,related accept",
                "ct state invalid counter name invalid drop",
                "ip saddr . ip daddr @hairpin accept",
                f"{pod_side} ip saddr vmap @egress",
                "goto arrive",
            ),
            "filter hook forward priority filter",
        ),
        "input": ChainSpec((f"{pod_side} goto from_pod",), "filter hook input priority filter"),
        "output": ChainSpec(
            (
                "ct state established,related accept",
                f"ip daddr {services} ip daddr != {dns} goto refuse",
                f"{towards} goto arrive",
            ),
            "filter hook output priority filter",
        ),
        # The tunnel looks up its outer route with the packet's mark: without this, answers would loop into the tunnel.
        "unmark": ChainSpec((f"oifname {tunnel} meta mark set 0",), "filter hook postrouting priority mangle"),
        "translate": ChainSpec(
            (
                f"ip saddr . ip daddr @hairpin snat ip to {own} fully-random",
                f'ip saddr {pods} ip daddr != {pods} oifname != "lo" snat ip to {own} fully-random',
                f"oifname {tunnel} ip saddr != {pods} ip saddr != {own} snat ip to {own} fully-random",
                # A node port whose backend is another machine: the answer has to come back here.
                f'oifname "{site.underlay_device}" ct status & dnat != 0 ip saddr != {own} ip saddr != {pods} '
                f"snat ip to {own} fully-random",
            ),
            "nat hook postrouting priority srcnat",
        ),
    }


def _policy_chains(site: Site) -> dict[str, ChainSpec]:
    pod_side = f'iifname "{ownership.LINK_PREFIX}*"'
    return {
        "refuse": ChainSpec(
            ("counter name refused", "meta l4proto tcp reject with tcp reset", "reject with icmpx port-unreachable")
        ),
        "arrive": ChainSpec(
            (
                "ip daddr vmap @ingress",
                f"ip daddr {site.service_cidr} goto refuse",
                f"{pod_side} ip daddr . meta l4proto . th dport @openports accept",
                f"{pod_side} ip daddr @hosts meta l4proto . th dport @closedports goto refuse",
                f"{pod_side} ip daddr @hosts ct status & dnat == 0 counter name denied_host drop",
                f"{pod_side} fib daddr type local ct status & dnat == 0 counter name denied_host drop",
                "accept",
            )
        ),
        "from_pod": ChainSpec(
            (
                "ct state established,related accept",
                "ct state invalid counter name invalid drop",
                f"ip daddr {site.dns_address} udp dport 53 accept",
                f"ip daddr {site.dns_address} tcp dport 53 accept",
                # Broadcasts: sockets of the host that are bound to no address would hear them.
                "fib daddr type != local counter name denied_host drop",
                "ip saddr vmap @egress",
                "goto arrive",
            )
        ),
        # Node ports whose service answers outsiders from their own host only: the cluster itself is not limited so.
        "near": ChainSpec(
            (
                "ip daddr @hosts meta l4proto . th dport vmap @nearports",
                "fib daddr type local meta l4proto . th dport vmap @nearports",
            )
        ),
        "balancer": ChainSpec(
            (
                f"ip daddr {site.dns_address} return",
                "ip daddr . meta l4proto . th dport vmap @services",
                "ip daddr @hosts meta l4proto . th dport vmap @nodeports",
                "fib daddr type local meta l4proto . th dport vmap @nodeports",
                "dnat ip to ip daddr . meta l4proto . th dport map @hostports",
                "fib daddr type local dnat ip to meta l4proto . th dport map @ownports",
            )
        ),
        "deny_egress": ChainSpec(("counter name denied_egress drop",)),
        "deny_ingress": ChainSpec(("counter name denied_ingress drop",)),
    }


def _routes(site: Site) -> tuple[Route, ...]:
    return (
        Route(site.pod_cidr, RouteKind.BLACKHOLE),
        # Services have no place of their own; the route gives the host's own connections a source address.
        Route(site.service_cidr, RouteKind.DIRECT, device=site.underlay_device, source=site.underlay_address),
    )

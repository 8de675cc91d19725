"""The wires between machines: a bridge in its own network namespace, a veth pair to each machine, blackhole routes.

Every function converges: it may be called on a whole, half-made or absent underlay.
"""

import json
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from common.errors import Terminal
from sphere import topology
from sphere.commands import run, succeeds
from sphere.topology import Machine

NETNS_DIR = Path("/run/netns")
BLACKHOLE_METRIC = "4278198272"
"""Worst metric: an administrator's own route for such a range keeps precedence, and ours is told apart by it."""


def netns_path(name: str) -> Path:
    return NETNS_DIR / name


def ours() -> list[str]:
    """Names of the network namespaces of a cluster on this box."""
    if not NETNS_DIR.is_dir():
        return []
    return sorted(path.name for path in NETNS_DIR.iterdir() if path.name.startswith("sphere-"))


def create_bridge() -> None:
    """The switch that joins the machines, without an address of its own."""
    if topology.UNDERLAY_NETNS not in ours():
        run(["ip", "netns", "add", topology.UNDERLAY_NETNS])
    inside = ["ip", "-n", topology.UNDERLAY_NETNS]
    if not succeeds([*inside, "link", "show", topology.BRIDGE]):
        run([*inside, "link", "add", topology.BRIDGE, "type", "bridge", "stp_state", "0", "forward_delay", "0"])
    run([*inside, "link", "set", topology.BRIDGE, "up"])
    run([*inside, "link", "set", "lo", "up"])


def is_connected(machine: Machine) -> bool:
    """Whether the machine's network namespace and wire exist."""
    return machine.netns in ours() and succeeds(["ip", "-n", topology.UNDERLAY_NETNS, "link", "show", machine.name])


def connect(machine: Machine) -> None:
    """A fresh network namespace for ``machine``, wired to the bridge. What was there by that name is dropped."""
    disconnect(machine.netns)
    run(["ip", "netns", "add", machine.netns])
    peer = ["peer", "name", machine.name, "netns", topology.UNDERLAY_NETNS]
    device = topology.UNDERLAY_DEVICE
    wire = ["link", "add", device, "address", machine.mac, "type", "veth", *peer]
    run(["ip", "-n", machine.netns, *wire])
    run(["ip", "-n", topology.UNDERLAY_NETNS, "link", "set", machine.name, "master", topology.BRIDGE, "up"])
    steps = [
        "link set lo up",
        f"link set {device} up",
        f"address add {machine.address}/{topology.UNDERLAY.prefixlen} dev {device}",
    ]
    if machine.name != topology.OUTSIDE:
        # Like a rack's router. It leads nowhere, but without it a service address has no route to be translated on.
        steps.append(f"route add default via {topology.outside().address}")
    run(["ip", "-n", machine.netns, "-batch", "-"], stdin="\n".join(steps) + "\n")


def disconnect(netns: str) -> None:
    """Remove a network namespace and its wire.

    The wire first, by its end at the bridge: the kernel clears a namespace away later, and until then the name of a
    wire in it is taken.
    """
    present = ours()
    if netns != topology.UNDERLAY_NETNS and topology.UNDERLAY_NETNS in present:
        succeeds(["ip", "-n", topology.UNDERLAY_NETNS, "link", "delete", netns.removeprefix("sphere-")])
    if netns in present:
        run(["ip", "netns", "delete", netns])


def check_routes() -> None:
    """Raise ``Terminal`` when the box needs a range of the cluster for itself."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show"]) or "[]")
    for cidr in topology.PRIVATE_RANGES:
        for route in routes:
            if is_in_the_way(route, cidr):
                device = f" dev {route['dev']}" if "dev" in route else ""
                raise Terminal(
                    f"this machine already routes {route['dst']}{device}, and the cluster needs {cidr}; remove that "
                    "route (a network of docker or podman, perhaps), or run sphere on another machine"
                )


def is_in_the_way(route: Mapping[str, Any], cidr: IPv4Network) -> bool:
    """Whether a blackhole for ``cidr`` would cut off what ``route`` (of `ip -j route`) leads to.

    A wide route by way of a gateway (10.0.0.0/8 of a VPN) is let be: it goes on for all but the cluster's ranges.
    """
    if route["dst"] == "default" or route.get("type") == "blackhole":
        return False
    there = IPv4Network(route["dst"])
    return there.subnet_of(cidr) or (cidr.subnet_of(there) and "gateway" not in route)


def add_blackholes() -> None:
    """Nothing addressed to a cluster's private ranges may leave the box through its own default route."""
    present = {line.split()[1] for line in run(["ip", "-4", "route", "show", "type", "blackhole"]).splitlines()}
    for cidr in topology.PRIVATE_RANGES:
        if str(cidr) not in present:
            run(["ip", "route", "add", "blackhole", str(cidr), "metric", BLACKHOLE_METRIC])


def remove_blackholes() -> None:
    for line in blackholes():
        run(["ip", "route", "delete", *line.split()])


def blackholes() -> list[str]:
    """Our blackhole routes, as `ip route` prints them."""
    lines = run(["ip", "-4", "route", "show", "type", "blackhole"]).splitlines()
    return [line.strip() for line in lines if f"metric {BLACKHOLE_METRIC}" in line]


def remove_all(names: Iterable[str]) -> None:
    for name in names:
        disconnect(name)

"""Hosts, address blocks and ports: tunnel routes, tunnel peers, anti-spoofing."""

from common.errors import Terminal
from common.messages import BlockItem, HostItem, HostPortsItem, PortItem
from nsx_agent.kernel import ownership
from nsx_agent.model import ElementKey, Key, Route, RouteKey, RouteKind, Value
from nsx_agent.render import addresses
from nsx_agent.render.skeleton import Site

VNI_MAX = (1 << 24) - 1


def host(item: HostItem, site: Site) -> dict[Key, Value]:
    """A member of the overlay may send to us; answers to it go through the tunnel."""
    underlay = addresses.address(item.underlay)
    entries: dict[Key, Value] = {ElementKey("hosts", underlay): ""}
    if item.name != site.host:
        route = Route(
            f"{underlay}/32",
            RouteKind.TUNNEL,
            table=ownership.HOST_TABLE,
            device=ownership.VXLAN_LINK,
            remote=underlay,
            vni=ownership.HOST_VNI,
        )
        entries[RouteKey(route.table, route.cidr)] = route
    return entries


def block(item: BlockItem, underlay_of: str | None, site: Site) -> dict[Key, Value]:
    """Addresses on another host are behind the tunnel. ``underlay_of`` is its address, None if it is unknown."""
    network = addresses.cidr(item.cidr)
    if not network.subnet_of(addresses.cidr(site.pod_cidr)):
        raise Terminal(f"block {network} is outside the pod range {site.pod_cidr}")
    if not 1 <= item.vni <= VNI_MAX:
        raise Terminal(f"VNI {item.vni} is out of range 1-{VNI_MAX}")
    if item.host == site.host:
        return {}
    if underlay_of is None:
        raise Terminal(f"host {item.host!r:.80} of block {network} is unknown")
    remote = addresses.address(underlay_of)
    route = Route(
        str(network), RouteKind.TUNNEL, device=ownership.VXLAN_LINK, source=site.underlay_address,
        remote=remote, vni=item.vni,
    )  # fmt: skip
    return {RouteKey(route.table, route.cidr): route}


def host_ports(item: HostPortsItem, underlay_of: str | None, site: Site) -> dict[Key, Value]:
    """Ports of a host that lead to a pod: from its own addresses there, from its underlay address everywhere.

    Everywhere, since pods reach nothing of a host but what is meant for them, and so that policies see the pod.
    """
    if underlay_of is None:
        raise Terminal(f"host {item.host!r:.80} of these host ports is unknown")
    underlay, here = addresses.address(underlay_of), item.host == site.host
    entries: dict[Key, Value] = {}
    for one in item.ports:
        front = f"{addresses.protocol(one.protocol)} . {addresses.port(one.host_port)}"
        wanted = addresses.address(one.host_address) if one.host_address else "0.0.0.0"
        every = wanted == "0.0.0.0"
        if not every and wanted != underlay and not here:
            continue  # an address that only its own host has
        where = f"{underlay if every else wanted} . {front}"
        if not item.address:
            entries[ElementKey("openports", where)] = ""
            continue
        target = f"{addresses.address(item.address)} . {addresses.port(one.pod_port)}"
        entries[ElementKey("hostports", where)] = target
        if every and here:
            entries[ElementKey("ownports", front)] = target
    return entries


def port(item: PortItem) -> dict[Key, Value]:
    """The only source address and MAC that the pod's link may use."""
    address, mac = addresses.address(item.address), addresses.mac(item.mac)
    name = ownership.link_name(item.pod_uid)
    return {
        ElementKey("ports", f'"{name}" . {mac} . {address}'): "",
        ElementKey("hairpin", f"{address} . {address}"): "",
    }


def pod_route(item: PortItem, site: Site) -> Route:
    """The route to a local pod; put when its link exists and its policy is in the kernel."""
    return Route(
        f"{addresses.address(item.address)}/32",
        RouteKind.DIRECT,
        device=ownership.link_name(item.pod_uid),
        source=site.underlay_address,
    )

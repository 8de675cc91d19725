"""Pod links (veth pairs), the tunnel device and sysctls (include/uapi/linux/if_link.h)."""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from common.errors import Retryable
from nsx_agent.kernel import ownership, routes
from nsx_agent.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    is_absent,
    is_present,
    nested,
    text,
    u8,
    u32,
)

T = TypeVar("T")

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_NET_NS_FD = 1, 3, 4, 18, 28
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
VETH_INFO_PEER: Final = 1
IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT, IFLA_VXLAN_COLLECT_METADATA = 7, 15, 25
IFF_UP: Final = 1
CLONE_NEWNET: Final = 0x40000000
VXLAN_PORT: Final = 4789
SIOCGIFFLAGS: Final = 0x8913
_IFINFO = struct.Struct("=BBHiII")

SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    # Spoofing is stopped per port by nft, exactly; reverse-path guesses would drop overlay answers.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # A flow that was cut must not come back from the middle, in the direction of its answers.
    "net/netfilter/nf_conntrack_tcp_loose": "0",
}


@dataclass(frozen=True, slots=True)
class PodLink:
    """What a pod's link is made of."""

    pod_uid: str
    netns: str
    ifname: str
    address: str
    mac: str
    mtu: int


def _silence_ipv6(*scopes: str) -> None:
    """No IPv6 on these: nothing filters or routes it yet. A kernel without IPv6 needs no disabling."""
    for scope in scopes:
        with contextlib.suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")


def _mac(value: str) -> bytes:
    return bytes.fromhex(value.replace(":", ""))


def write_sysctls() -> None:
    """Make this namespace a router. Raises ``Retryable`` naming the key that cannot be set."""
    for key, value in SYSCTLS.items():
        path = Path("/proc/sys") / key
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except OSError as err:
            raise Retryable(f"cannot set {key} to {value}: {err.strerror}") from err


def set_up(netlink: Netlink, link: int, **more: bytes) -> None:
    body = _IFINFO.pack(0, 0, 0, link, IFF_UP, IFF_UP) + b"".join(more.values())
    netlink.request(RTM_NEWLINK, 0, body, f"set link {link} up")


def ensure_tunnel(netlink: Netlink, underlay: str, mtu: int) -> int:
    """The VXLAN device in collect-metadata mode, up, with this host's overlay MAC. Returns its index."""
    mac = attribute(IFLA_ADDRESS, _mac(ownership.overlay_mac(underlay)))
    info = nested(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"vxlan"),
        nested(
            IFLA_INFO_DATA,
            attribute(IFLA_VXLAN_COLLECT_METADATA, u8(1)),
            attribute(IFLA_VXLAN_PORT, struct.pack(">H", VXLAN_PORT)),
            attribute(IFLA_VXLAN_LEARNING, u8(0)),
        ),
    )
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0, 0)
        + attribute(IFLA_IFNAME, text(ownership.VXLAN_LINK))
        + mac
        + attribute(IFLA_MTU, u32(mtu))
        + info
    )
    try:
        netlink.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, "create vxlan0")
    except NetlinkError as err:
        if not is_present(err):
            raise
    _silence_ipv6(ownership.VXLAN_LINK)
    link = routes.index_of(ownership.VXLAN_LINK)
    seen = _attributes_of(netlink, link)
    wrong = {}
    # Only what differs: being given its address, even the one it has, a device forgets all its neighbours.
    if seen.get(IFLA_ADDRESS) != _mac(ownership.overlay_mac(underlay)):
        wrong["mac"] = mac
    if seen.get(IFLA_MTU) != u32(mtu):
        wrong["mtu"] = attribute(IFLA_MTU, u32(mtu))
    set_up(netlink, link, **wrong)
    return link


def _attributes_of(netlink: Netlink, link: int) -> dict[int, bytes]:
    return attributes(netlink.get(RTM_GETLINK, _IFINFO.pack(0, 0, 0, link, 0, 0), f"read link {link}"), _IFINFO.size)


def mtu(netlink: Netlink, link: int) -> int:
    """Of a device, in bytes."""
    (value,) = struct.unpack("=I", _attributes_of(netlink, link)[IFLA_MTU])
    return int(value)


def ensure_loopback(netlink: Netlink, address: str) -> None:
    """``lo`` up, with ``address``."""
    link = routes.index_of("lo")
    set_up(netlink, link)
    routes.put_address(netlink, address, link)


def pod_links(netlink: Netlink) -> set[str]:
    """Names of the host ends that exist."""
    found: set[str] = set()
    for body in netlink.dump(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0, 0), "list links"):
        name = attributes(body, _IFINFO.size).get(IFLA_IFNAME, b"").rstrip(b"\0").decode()
        if name.startswith(ownership.LINK_PREFIX):
            found.add(name)
    return found


def exists(name: str) -> bool:
    """Whether a link of that name is there."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def is_down(name: str) -> bool:
    """Whether a link of that name is there, and is not up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sH14x", name.encode(), 0))
        except OSError:
            return False
    return not struct.unpack_from("H", answer, 16)[0] & IFF_UP


def remove(netlink: Netlink, name: str) -> None:
    """Delete a link; absent is fine."""
    body = _IFINFO.pack(0, 0, 0, 0, 0, 0) + attribute(IFLA_IFNAME, text(name))
    try:
        netlink.request(RTM_DELLINK, 0, body, f"delete link {name}")
    except NetlinkError as err:
        if not is_absent(err):
            raise


def ensure_pod_link(netlink: Netlink, pod: PodLink) -> None:
    """Create the pair with one end in the pod's namespace and set both ends up; adopt what is already right.

    Blocks for some milliseconds: call it in a thread. Raises ``Retryable``.
    """
    name, gateway_mac = ownership.link_name(pod.pod_uid), ownership.gateway_mac(pod.pod_uid)
    try:
        namespace = os.open(pod.netns, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise Retryable(f"cannot open pod network namespace {pod.netns}: {err.strerror}") from err
    try:
        if exists(name) and not in_namespace(namespace, lambda: exists(pod.ifname)):
            remove(netlink, name)  # left over from a namespace that is gone
        if not exists(name):
            _create_pair(netlink, pod, name, gateway_mac, namespace)
        in_namespace(namespace, lambda: _configure_inside(pod, gateway_mac))
    finally:
        os.close(namespace)
    _silence_ipv6(name)
    link = routes.index_of(name)
    set_up(netlink, link)
    routes.put_neighbour(netlink, pod.address, pod.mac, link)


def _create_pair(netlink: Netlink, pod: PodLink, name: str, gateway_mac: str, namespace: int) -> None:
    peer = (
        _IFINFO.pack(0, 0, 0, 0, 0, 0)
        + attribute(IFLA_IFNAME, text(pod.ifname))
        + attribute(IFLA_ADDRESS, _mac(pod.mac))
        + attribute(IFLA_MTU, u32(pod.mtu))
        + attribute(IFLA_NET_NS_FD, u32(namespace))
    )
    info = nested(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"veth"),
        nested(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, peer)),
    )
    body = (
        _IFINFO.pack(0, 0, 0, 0, 0, 0)
        + attribute(IFLA_IFNAME, text(name))
        + attribute(IFLA_ADDRESS, _mac(gateway_mac))
        + attribute(IFLA_MTU, u32(pod.mtu))
        + info
    )
    netlink.request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create link {name}")


def _configure_inside(pod: PodLink, gateway_mac: str) -> None:
    _silence_ipv6("all", "default", pod.ifname)
    netlink = Netlink()
    try:
        set_up(netlink, routes.index_of("lo"))
        link = routes.index_of(pod.ifname)
        set_up(netlink, link)
        routes.put_address(netlink, pod.address, link)
        routes.put_neighbour(netlink, ownership.POD_GATEWAY, gateway_mac, link)
        routes.put_default(netlink, ownership.POD_GATEWAY, link)
    finally:
        netlink.close()


def in_namespace(namespace: int, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread of its own inside the network namespace ``namespace`` (a descriptor)."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace, CLONE_NEWNET) != 0:
                raise Retryable(f"cannot enter the pod's network namespace: {os.strerror(ctypes.get_errno())}")
            results.append(work())
        except BaseException as err:  # carried to the caller's thread, raised there
            errors.append(err)

    thread = threading.Thread(target=run, name="pod-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

"""How the agent knows that a kernel object is its own. One row per kind; nothing else is ever changed or removed."""

import hashlib
from typing import Final

NFT_FAMILY: Final = "inet"
NFT_TABLE: Final = "nsx"
"""Every chain, set and map of this table."""
ROUTE_PROTOCOL: Final = 73
"""``proto`` of every route, in whichever table."""
HOST_TABLE: Final = 73
"""Routing table for answers of pods to other hosts' addresses; a rule with ``HOST_MARK`` leads to it."""
HOST_MARK: Final = 0x80000073
"""Its top bit keeps it apart from balancer slots, which pass through the packet mark."""
RULE_PRIORITY: Final = 7300
LINK_PREFIX: Final = "nsx"
"""Host ends of pod links: the prefix and 11 hex digits of the pod uid's hash (IFNAMSIZ is 16)."""
VXLAN_LINK: Final = "vxlan0"
"""The tunnel device. Each host's has its own MAC: the kernel drops what comes from the MAC of the receiving device."""
POD_GATEWAY: Final = "169.254.1.1"
HOST_VNI: Final = 1
"""Carries traffic between a host's own address and remote pods; segments start at 4096."""


def link_name(pod_uid: str) -> str:
    """Name of the host end of the pod's link."""
    return LINK_PREFIX + hashlib.blake2b(pod_uid.encode(), digest_size=6).hexdigest()[:11]


def gateway_mac(pod_uid: str) -> str:
    """MAC of the host end of the pod's link: stable, so that a pod's permanent neighbour survives a restart."""
    return "02:74:" + ":".join(f"{byte:02x}" for byte in hashlib.blake2b(pod_uid.encode(), digest_size=4).digest())


def overlay_mac(underlay: str) -> str:
    """MAC of the tunnel device of the host with that underlay address."""
    return "02:75:" + ":".join(f"{int(octet):02x}" for octet in underlay.split("."))

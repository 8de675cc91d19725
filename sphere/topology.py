"""Names and addresses of the one-machine cluster. Pure.

The underlay is 172.30.0.0/24: ``control`` .2, ``host-N`` .(10+N), ``outside`` (the physical network) .250.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

UNDERLAY = IPv4Network("172.30.0.0/24")
POD_CIDR = IPv4Network("10.64.0.0/12")
SERVICE_CIDR = IPv4Network("10.96.0.0/16")
KUBERNETES_SERVICE = IPv4Address("10.96.0.1")
DNS_ADDRESS = IPv4Address("10.96.0.10")
CLUSTER_DOMAIN = "cluster.local"
PRIVATE_RANGES = (POD_CIDR, SERVICE_CIDR, UNDERLAY)
"""Exist only inside the machines; the box gets blackhole routes for them, so that nothing leaks out of it."""
API_PORT = 6443
BROKER_PORT = 8883
SPHERELET_PORT = 10250
AGENT_PORT = 10251
ETCD_PORT = 2379
PROMETHEUS_PORT = 9090
ETCD_METRICS = "127.0.0.1:2381"
CONTROLLER_NAME = "sphere-controller"
"""DNS name in the controller's certificate. etcd admits only clients that have it: a host's certificate, signed by the
same authority, must not open the store."""
UNDERLAY_DEVICE = "eth0"
UNDERLAY_NETNS = "sphere-underlay"
BRIDGE = "underlay"
HOSTS_MAX = 50
CGROUP_ROOT = "/sphere"
CONTROL = "control"
OUTSIDE = "outside"


@dataclass(frozen=True)
class Machine:
    """A member of the underlay: a network namespace, and (except ``outside``) a supervisor with components."""

    name: str
    address: IPv4Address

    @property
    def netns(self) -> str:
        return f"sphere-{self.name}"

    @property
    def mac(self) -> str:
        """Follows from the address, so that neighbours need not learn a rebooted machine anew."""
        return "02:73:75:" + ":".join(f"{octet:02x}" for octet in self.address.packed[1:])

    @property
    def cgroup(self) -> str:
        """Parent of all of the machine's cgroups, in every hierarchy."""
        return f"{CGROUP_ROOT}/{self.name}"

    @property
    def is_host(self) -> bool:
        return self.name.startswith("host-")


def control() -> Machine:
    return Machine(CONTROL, UNDERLAY[2])


def outside() -> Machine:
    return Machine(OUTSIDE, UNDERLAY[250])


def host(number: int) -> Machine:
    """``number`` counts from 1."""
    return Machine(f"host-{number}", UNDERLAY[10 + number])


def hosts(count: int) -> tuple[Machine, ...]:
    return tuple(host(number) for number in range(1, count + 1))


def machines(count: int) -> tuple[Machine, ...]:
    """Every machine of a cluster of ``count`` hosts, in the order in which they start."""
    return (outside(), control(), *hosts(count))

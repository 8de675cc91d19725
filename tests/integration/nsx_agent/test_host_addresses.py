"""What hosts' own addresses offer, by packets: node ports, host ports, and nothing else."""

import subprocess
import time

import pytest

from common.messages import (
    Backend,
    BlockItem,
    HostItem,
    HostPort,
    HostPortsItem,
    InterestItem,
    Scope,
    ServiceItem,
    ServicePort,
)

pytestmark = pytest.mark.integration
SHOP, CLUSTER = Scope.namespace("shop"), Scope.cluster()
ON_HOST_TWO = 9200


@pytest.fixture(scope="module")
def pair(world):
    """Two hosts, a pod on each that greets on 9000, and a process on host-2's own network that does."""
    control = world.controller
    one, two = world.add_host(), world.add_host()
    world.near, world.far = world.pod(one, "shop", "near", "10.64.5.2"), world.pod(two, "shop", "far", "10.64.5.18")
    world.client = world.pod(one, "shop", "client", "10.64.5.3")
    both = (
        Backend(address=world.near.address, port=9000, host="host-1"),
        Backend(address=world.far.address, port=9000, host="host-2"),
    )
    own = (Backend(address=two.address, port=ON_HOST_TWO, host="host-2"),)

    def service(name, number, **more):
        return ServiceItem(namespace="shop", name=name, cluster_ip=f"10.96.0.{number}", **more)

    world.items = {
        "host/host-1": HostItem(name="host-1", underlay=one.address),
        "host/host-2": HostItem(name="host-2", underlay=two.address),
        "block/10.64.5.0-28": BlockItem(cidr="10.64.5.0/28", vni=4100, host="host-1", namespace="shop"),
        "block/10.64.5.16-28": BlockItem(cidr="10.64.5.16/28", vni=4100, host="host-2", namespace="shop"),
        "service/shop/local": service(
            "local", 10, external_local=True,
            ports=(ServicePort(protocol="tcp", port=80, node_port=30010, backends=both[1:]),),
        ),
        "service/shop/sticky": service(
            "sticky", 12, external_local=True, affinity_s=60,
            ports=(ServicePort(protocol="tcp", port=80, node_port=30012, backends=both),),
        ),
        "service/shop/daemon": service(
            "daemon", 11, ports=(ServicePort(protocol="tcp", port=80, node_port=30011, backends=own),)
        ),
        "service/shop/none": service(
            "none", 13, ports=(ServicePort(protocol="tcp", port=80, node_port=30013),
                               ServicePort(protocol="udp", port=80, node_port=30014)),
        ),
        "hostports/far": HostPortsItem(
            pod_uid="far", host="host-2", address=world.far.address,
            ports=(HostPort(protocol="tcp", host_port=8081, pod_port=9000),
                   HostPort(protocol="tcp", host_port=8082, pod_port=9000, host_address=two.address),
                   HostPort(protocol="tcp", host_port=8083, pod_port=9000, host_address="127.0.0.1")),
        ),
        "hostports/daemon": HostPortsItem(
            pod_uid="daemon", host="host-2",
            ports=(HostPort(protocol="tcp", host_port=ON_HOST_TWO, pod_port=ON_HOST_TWO),),
        ),
    }  # fmt: skip
    control.publish(CLUSTER, world.items)
    control.publish(SHOP, {})
    interest = {"interest/namespaces": InterestItem(namespaces=("shop",))}
    ports = {f"port/{pod.uid}": pod.item() for pod in (world.near, world.client)}
    control.publish(one.scope, {**interest, **ports})
    control.publish(two.scope, {**interest, f"port/{world.far.uid}": world.far.item()})
    for pod in (world.near, world.client, world.far):
        assert pod.add()["ok"], pod.host.log()
    for pod in (world.near, world.far):
        pod.listen(9000)
        pod.listen(9000, "UDP4")
    for port, name in ((ON_HOST_TWO, "daemon"), (9201, "secret")):
        greet(world, two.netns, "TCP4-LISTEN", port, f"{name} $SOCAT_PEERADDR")
    return world


def greet(world, netns, kind, port, words):
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{netns}", "socat", f"{kind}:{port},fork,reuseaddr",
         f"SYSTEM:echo {words}; cat >/dev/null & sleep 0.05"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    world.processes.append(process)
    option = "-ltn" if kind.startswith("TCP") else "-lun"
    deadline = time.monotonic() + 10
    while (
        f":{port}"
        not in subprocess.run(
            ["nsenter", f"--net=/run/netns/{netns}", "ss", option], capture_output=True, text=True, timeout=10
        ).stdout
    ):
        assert time.monotonic() < deadline


def tcp(netns, address, port, seconds=1.5, source=""):
    bind = f",bind={source}" if source else ""
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "socat", "-t", "0.5", "-T", str(seconds), "-",
         f"TCP4:{address}:{port},connect-timeout={seconds}{bind}"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr.strip().lower()


def udp(netns, address, port, source_port):
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "socat", "-t", "0.4", "-",
         f"UDP4:{address}:{port},sourceport={source_port}"],
        capture_output=True, text=True, input="x", timeout=10,
    ).stdout.strip()  # fmt: skip


@pytest.mark.parametrize("number", [1, 2])
def test_the_cluster_itself_reaches_a_local_node_port_by_every_host(pair, number):
    """Outsiders reach its backends by their own host only; pods and hosts are no outsiders."""
    one, two = pair.hosts
    address = (one, two)[number - 1].address
    assert tcp(pair.client.netns, address, 30010) == "far"
    assert tcp(one.netns, address, 30010) == "far"
    answer = tcp(pair.outside, address, 30010)
    assert answer == "far" if number == 2 else "refused" in answer


def test_a_local_node_port_keeps_its_affinity(pair):
    one, two = pair.hosts
    for source in (pair.client.netns, two.netns):
        assert len({tcp(source, one.address, 30012) for _ in range(8)}) == 1
    assert {tcp(pair.outside, one.address, 30012) for _ in range(4)} == {"near"}
    assert {tcp(pair.outside, two.address, 30012) for _ in range(4)} == {"far"}


def test_a_node_port_leads_to_a_backend_that_is_another_host(pair):
    """The answer has to come back by the host that was asked, or the client does not know it."""
    one, two = pair.hosts
    assert tcp(pair.outside, one.address, 30011) == f"daemon {one.address}"
    assert tcp(pair.outside, two.address, 30011).startswith("daemon")
    assert tcp(pair.client.netns, two.address, 30011).startswith("daemon")


def test_a_node_port_without_backends_refuses_pods_at_once(pair):
    for host in pair.hosts:
        assert "refused" in tcp(pair.client.netns, host.address, 30013, 5.0)
    assert "refused" in tcp(pair.outside, pair.hosts[0].address, 30013, 5.0)
    assert "refused" in tcp(pair.hosts[0].netns, "10.96.0.13", 80, 5.0)


def test_a_host_port_is_there_for_everybody(pair):
    one, two = pair.hosts
    for source in (pair.client.netns, pair.far.netns, pair.outside, one.netns, two.netns):
        assert tcp(source, two.address, 8081) == "far", source
        assert tcp(source, two.address, 8082) == "far", source
    assert "far" not in tcp(pair.client.netns, one.address, 8081)
    assert tcp(two.netns, "127.0.0.1", 8083, source=two.address) == "far"
    assert "far" not in tcp(two.netns, two.address, 8083)


def test_pods_reach_ports_of_pods_on_the_hosts_network_and_no_others(pair):
    two = pair.hosts[1]
    for source in (pair.client.netns, pair.far.netns):
        assert tcp(source, two.address, ON_HOST_TWO).startswith("daemon")
        assert "timed out" in tcp(source, two.address, 9201)


def test_a_broadcast_of_a_pod_is_not_heard_by_its_host(pair):
    two = pair.hosts[1]
    heard = pair.path / "heard"
    listener = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{two.netns}", "socat", "-u", "UDP4-RECV:7777", f"CREATE:{heard}"]
    )
    pair.processes.append(listener)
    deadline = time.monotonic() + 10
    while ":7777" not in two.run("ss", "-lun"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for _ in range(3):
        pair.far.run("socat", "-u", "-", "UDP4-DATAGRAM:255.255.255.255:7777,broadcast", stdin="psst", check=False)
    two.run("socat", "-u", "-", f"UDP4:{two.address}:7777", stdin="mine")
    while not heard.exists() or not heard.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert heard.read_text() == "mine"


def test_udp_to_a_node_port_finds_backends_that_come_later(pair):
    """The client keeps its port, and the host remembers that nobody answered there."""
    one = pair.hosts[0]
    assert udp(pair.outside, one.address, 30014, 5400) == ""
    backends = (Backend(address=pair.far.address, port=9000, host="host-2"),)
    port = ServicePort(protocol="udp", port=80, node_port=30014, backends=backends)
    later = ServiceItem(namespace="shop", name="none", cluster_ip="10.96.0.13", ports=(port,))
    pair.controller.publish(CLUSTER, {"service/shop/none": later})
    pair.controller.wait_realized(CLUSTER, ["host-1", "host-2"])
    assert udp(pair.outside, one.address, 30014, 5400) == "far"
    pair.controller.publish(CLUSTER, {"service/shop/none": pair.items["service/shop/none"]})
    pair.controller.wait_realized(CLUSTER, ["host-1", "host-2"])

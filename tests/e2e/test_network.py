"""Who reaches whom, by packets: pods by address and through services, from pods, hosts and outside."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.network_pods import Net, names, new_net, outside_server, probe_from, server_pod

pytestmark = pytest.mark.e2e
HTTP = [{"name": "http", "containerPort": 8080}]
WEB = {"tier": "web"}
BACKENDS = {"one", "two", "three"}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [
        {"name": "http", "port": 80, "targetPort": "http"},
        {"name": "echo", "port": 90, "targetPort": 9090, "protocol": "UDP"},
    ]
    meta = {"name": name}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": WEB, "ports": ports, **spec}}


@pytest.fixture(scope="module")
def net(cluster: Cluster) -> Iterator[Net]:
    """``one``, ``two``, ``three`` serve, one on each host; ``client`` is beside ``one`` and serves nobody else."""
    with new_net(cluster, "net") as found:
        pods = [
            server_pod(name, host, WEB, tcp="8080,8081", udp="9090", ports=HTTP)
            for name, host in zip(("one", "two", "three"), cluster.hosts, strict=True)
        ]
        found.run(*pods, server_pod("client", cluster.hosts[0], tcp="8080"))
        found.kubectl.apply(
            service("web"),
            service("sticky", sessionAffinity="ClientIP"),
            service("door", type="NodePort"),
            service("solo", selector={"app": "one"}),
        )
        found.realized("service/web", "service/sticky", "service/door", "service/solo")
        yield found


@pytest.fixture(scope="module")
def address(net: Net) -> dict[str, str]:
    return net.addresses()


def cluster_ip(net: Net, name: str) -> str:
    return str(net.kubectl.get("service", name)["spec"]["clusterIP"])


def test_pods_reach_each_other_by_address_with_their_own(net: Net, address: dict[str, str]) -> None:
    for pod in ("client", "two", "three"):
        targets = {f"{proto}:{address[name]}:{port}": name for name in BACKENDS - {pod}
                   for proto, port in (("tcp", 8080), ("udp", 9090))}  # fmt: skip
        for target, answers in net.probe(pod, *targets).items():
            assert answers == [f"{targets[target]} {address[pod]}"], (pod, target)


def test_hosts_reach_pods_everywhere(cluster: Cluster, net: Net, address: dict[str, str]) -> None:
    for host in cluster.hosts:
        targets = {f"tcp:{address[name]}:8080": name for name in BACKENDS}
        for target, answers in probe_from(cluster, host, *targets).items():
            assert names(answers) == {targets[target]}, (host, target)


def test_a_service_spreads_over_pods_on_all_hosts(net: Net, address: dict[str, str]) -> None:
    ip = cluster_ip(net, "web")
    for pod in ("client", "two"):
        found = net.probe(pod, f"tcp:{ip}:80", f"udp:{ip}:90", each=40)
        for target, answers in found.items():
            assert names(answers) == BACKENDS, (pod, target, answers)
            others = {answer.split()[1] for answer in answers if answer.split()[0] != pod}
            assert others == {address[pod]}, "the client's address is preserved"


def test_a_service_port_that_does_not_exist_answers_nothing(net: Net) -> None:
    assert net.answer("client", f"tcp:{cluster_ip(net, 'web')}:81").startswith("!")


def test_a_pod_reaches_itself_through_its_service(net: Net) -> None:
    ip = cluster_ip(net, "solo")
    for target, answers in net.probe("one", f"tcp:{ip}:80", f"udp:{ip}:90", each=3).items():
        assert names(answers) == {"one"}, (target, answers)


def test_session_affinity_keeps_a_client_at_one_pod(net: Net) -> None:
    ip = cluster_ip(net, "sticky")
    for pod in ("client", "two", "three"):
        assert len(names(net.probe(pod, f"tcp:{ip}:80", each=20)[f"tcp:{ip}:80"])) == 1


def test_hosts_reach_services(cluster: Cluster, net: Net) -> None:
    target = f"tcp:{cluster_ip(net, 'web')}:80"
    for host in cluster.hosts:
        assert names(probe_from(cluster, host, target, each=30)[target]) == BACKENDS


def test_a_node_port_is_open_on_every_host(cluster: Cluster, net: Net) -> None:
    ports = {port["name"]: port["nodePort"] for port in net.kubectl.get("service", "door")["spec"]["ports"]}
    hosts = [row["status"]["addresses"][0]["address"] for row in net.kubectl.get("nodes")["items"]]
    targets = [f"tcp:{host}:{ports['http']}" for host in hosts] + [f"udp:{host}:{ports['echo']}" for host in hosts]
    for source in ("outside", cluster.hosts[0]):
        for target, answers in probe_from(cluster, source, *targets, each=20).items():
            assert names(answers) == BACKENDS, (source, target, answers)
    assert names(net.probe("client", targets[1], each=20)[targets[1]]) == BACKENDS


def test_pods_leave_the_cluster_with_their_hosts_address(cluster: Cluster, net: Net) -> None:
    with outside_server(cluster) as target:
        for index, pod in enumerate(("client", "two", "three")):
            assert net.answer(pod, target) == f"outside 172.30.0.1{index + 1}"


def test_readiness_decides_who_answers(net: Net, eventually: Any) -> None:
    file_exists = {"exec": {"command": ["cat", "/probe-ready"]}, "periodSeconds": 1, "failureThreshold": 1}
    picky = server_pod("picky", None, {"tier": "picky"}, ports=HTTP)
    picky["spec"]["containers"][0]["readinessProbe"] = file_exists
    net.kubectl.apply(picky, service("choosy", selector={"tier": "picky"}))
    eventually(lambda: net.kubectl.get("pod", "picky")["status"]["phase"] == "Running")
    net.realized("service/choosy")
    target = f"tcp:{cluster_ip(net, 'choosy')}:80"
    assert net.answer("two", target).startswith("!")
    net.kubectl("exec", "picky", "--", "touch", "/probe-ready")
    eventually(lambda: net.answer("two", target).startswith("picky"), timeout_s=10)
    net.kubectl("exec", "picky", "--", "rm", "/probe-ready")
    eventually(lambda: net.answer("two", target).startswith("!"), timeout_s=10)


def test_large_packets_cross_hosts(net: Net, address: dict[str, str]) -> None:
    for size in (1400, 8000, 60000):
        said = net.kubectl("exec", "client", "--", "busybox", "ping", "-c", "2", "-s", str(size), address["three"])
        assert " 0% packet loss" in said

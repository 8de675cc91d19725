"""Services, names and handshakes on one host, with a client outside the cluster."""

import socket as sockets
import subprocess
import time
from statistics import median

import pytest

from common.messages import (
    AddressSetItem,
    Backend,
    DnsName,
    HostItem,
    InterestItem,
    PolicyItem,
    Scope,
    ServiceItem,
    ServicePort,
)
from common.unbound import unbound_conf

pytestmark = pytest.mark.integration
SHOP, CLUSTER = Scope.namespace("shop"), Scope.cluster()


def backends(*pods, port=9000):
    return tuple(Backend(address=pod.address, port=port, host="host-1") for pod in pods)


def echo(pods, **more):
    ports = (
        ServicePort(name="tcp", protocol="tcp", port=90, node_port=30090, backends=backends(*pods)),
        ServicePort(name="udp", protocol="udp", port=90, backends=backends(*pods)),
    )
    return ServiceItem(namespace="shop", name="echo", cluster_ip="10.96.0.90", ports=ports, **more)


@pytest.fixture(scope="module")
def shop(world):
    control = world.controller
    host = world.add_host()
    world.client = world.pod(host, "shop", "client", "10.64.2.2")
    world.servers = [world.pod(host, "shop", f"echo-{n}", f"10.64.2.{2 + n}") for n in (1, 2)]
    control.publish(
        CLUSTER,
        {
            "host/host-1": HostItem(name="host-1", underlay=host.address),
            "service/shop/echo": echo(world.servers),
            "service/shop/empty": ServiceItem(
                namespace="shop", name="empty", cluster_ip="10.96.0.91", ports=(ServicePort(protocol="tcp", port=91),)
            ),
        },
    )
    control.publish(SHOP, {})
    pods = [world.client, *world.servers]
    items = {f"port/{pod.uid}": pod.item() for pod in pods}
    control.publish(host.scope, {"interest/namespaces": InterestItem(namespaces=("shop",)), **items})
    for pod in pods:
        assert pod.add()["ok"], host.log()
    for pod in world.servers:
        pod.listen(9000)
        pod.listen(9000, "UDP4")
    return world


def tcp(netns, address, port, seconds=1.0):
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "socat", "-t", "0.5", "-T", str(seconds), "-",
         f"TCP4:{address}:{port},connect-timeout={seconds}"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10,
    )  # fmt: skip


def udp(netns, address, port, source_port=0):
    bind = f",sourceport={source_port}" if source_port else ""
    return subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "socat", "-t", "0.4", "-", f"UDP4:{address}:{port}{bind}"],
        capture_output=True, text=True, input="x", timeout=10,
    ).stdout.strip()  # fmt: skip


def test_node_port_from_outside(shop):
    answers = {tcp(shop.outside, "172.30.0.11", 30090).stdout.strip() for _ in range(12)}
    assert answers == {"echo-1", "echo-2"}


def test_node_port_from_a_pod(shop):
    assert tcp(shop.client.netns, "172.30.0.11", 30090).stdout.strip() in {"echo-1", "echo-2"}


def test_service_without_backends_refuses_at_once(shop):
    began = time.monotonic()
    answer = tcp(shop.client.netns, "10.96.0.91", 91, 5.0)
    assert "refused" in answer.stderr.lower()
    assert time.monotonic() - began < 2


def test_pod_reaches_no_port_of_its_host(shop):
    assert tcp(shop.client.netns, "172.30.0.11", 10251).stdout == ""
    assert "timed out" in tcp(shop.client.netns, "172.30.0.11", 10251).stderr.lower()


def test_udp_flow_of_a_removed_endpoint_is_gone_before_the_acknowledgement(shop):
    control, client = shop.controller, shop.client
    first = udp(client.netns, "10.96.0.90", 90, 5353)
    assert first in {"echo-1", "echo-2"}
    left = [pod for pod in shop.servers if pod.name != first]
    control.publish(CLUSTER, {"service/shop/echo": echo(left)})
    control.wait_realized(CLUSTER, ["host-1"])
    time.sleep(0.6)
    assert udp(client.netns, "10.96.0.90", 90, 5353) == left[0].name
    control.publish(CLUSTER, {"service/shop/echo": echo(shop.servers)})
    control.wait_realized(CLUSTER, ["host-1"])


def test_affinity_keeps_a_client_and_moves_it_only_when_it_must(shop):
    control, client = shop.controller, shop.client
    control.publish(CLUSTER, {"service/shop/echo": echo(shop.servers, affinity_s=60)})
    control.wait_realized(CLUSTER, ["host-1"])
    answers = {tcp(client.netns, "10.96.0.90", 90).stdout.strip() for _ in range(10)}
    assert len(answers) == 1
    left = [pod for pod in shop.servers if pod.name not in answers]
    control.publish(CLUSTER, {"service/shop/echo": echo(left, affinity_s=60)})
    control.wait_realized(CLUSTER, ["host-1"])
    assert {tcp(client.netns, "10.96.0.90", 90).stdout.strip() for _ in range(5)} == {left[0].name}
    control.publish(CLUSTER, {"service/shop/echo": echo(shop.servers, affinity_s=60)})
    control.wait_realized(CLUSTER, ["host-1"])
    assert {tcp(client.netns, "10.96.0.90", 90).stdout.strip() for _ in range(5)} == {left[0].name}
    control.publish(CLUSTER, {"service/shop/echo": echo(shop.servers)})
    control.wait_realized(CLUSTER, ["host-1"])


def test_policy_change_cuts_the_flow_it_forbids_and_no_other(shop):
    control, client = shop.controller, shop.client
    first, second = shop.servers
    flows = [Stream(client, pod) for pod in (first, second)]
    time.sleep(0.5)
    policy = PolicyItem(namespace="shop", name="shut", uid="s", selected="first", ingress=())
    control.publish(SHOP, {"policy/shut": policy, "set/first": AddressSetItem(id="first", members=(first.address,))})
    control.wait_realized(SHOP, ["host-1"])
    marks = [flow.bytes() for flow in flows]
    time.sleep(0.8)
    moved = [flow.bytes() - mark for flow, mark in zip(flows, marks, strict=True)]
    assert moved[0] == 0, "the forbidden flow stands still"
    assert moved[1] > 0, "the other one goes on"
    control.publish(SHOP, {"policy/shut": None, "set/first": None})
    control.wait_realized(SHOP, ["host-1"])
    for flow in flows:
        flow.close()


class Stream:
    """A TCP connection over which ``pod`` sends a line each 50 ms to ``client``."""

    def __init__(self, client, pod):
        self.path = client.world.path / f"stream-{pod.name}"
        port = 9100
        pod.spawn("socat", f"TCP4-LISTEN:{port},reuseaddr", "SYSTEM:while sleep 0.05; do echo tick; done")
        deadline = time.monotonic() + 5
        while f":{port}" not in pod.run("ss", "-ltn"):
            assert time.monotonic() < deadline
        self.process = client.spawn("socat", "-u", f"TCP4:{pod.address}:{port}", f"CREATE:{self.path}")

    def bytes(self):
        return self.path.stat().st_size if self.path.exists() else 0

    def close(self):
        self.process.kill()


def test_drained_and_unknown_port(shop):
    control, client = shop.controller, shop.client
    host = client.host
    assert host.ask("drained", pod_uid=client.uid, timeout_s=0.2) == {"ok": True, "drained": False}
    control.publish(host.scope, {f"port/{client.uid}": client.item(drained=True)})
    assert host.ask("drained", pod_uid=client.uid, timeout_s=5)["drained"] is True
    reply = host.ask("add", pod_uid="nobody", netns=client.path, ifname="eth0", timeout_s=0.2)
    assert reply["code"] == "unknown-port"


def test_barrier_waits_when_strict_and_goes_on_when_available(shop):
    control = shop.controller
    host = shop.client.host
    strict = shop.pod(host, "shop", "strict", "10.64.2.8")
    control.publish(host.scope, {f"port/{strict.uid}": strict.item(cleared=False, strict=True)})
    assert strict.add(timeout_s=0.5)["code"] == "timeout"
    control.publish(host.scope, {f"port/{strict.uid}": strict.item(cleared=False, strict=False)})
    assert strict.add(timeout_s=0.5)["ok"]
    assert host.ask("del", pod_uid=strict.uid, netns=strict.path) == {"ok": True}
    assert host.ask("del", pod_uid=strict.uid, netns=strict.path) == {"ok": True}
    control.publish(host.scope, {f"port/{strict.uid}": None})
    control.wait_realized(host.scope, ["host-1"])


def test_bad_item_is_reported_and_the_rest_applied(shop):
    control = shop.controller
    evil = ServiceItem(
        namespace="shop",
        name="evil",
        cluster_ip="1.2.3.4 }; flush ruleset",
        ports=(ServicePort(protocol="tcp", port=1),),
    )
    good = ServiceItem(
        namespace="shop", name="good", cluster_ip="10.96.0.92",
        ports=(ServicePort(protocol="tcp", port=92, backends=backends(shop.servers[0])),),
    )  # fmt: skip
    control.publish(CLUSTER, {"service/shop/evil": evil, "service/shop/good": good})
    control.wait_realized(CLUSTER, ["host-1"])
    failures = control.watermark("host-1", CLUSTER).failures
    assert [failure.key for failure in failures] == ["service/shop/evil"]
    assert tcp(shop.client.netns, "10.96.0.92", 92).stdout.strip() == "echo-1"
    control.publish(CLUSTER, {"service/shop/evil": None, "service/shop/good": None})
    control.wait_realized(CLUSTER, ["host-1"])
    assert control.watermark("host-1", CLUSTER).failures == ()


def test_names(shop):
    control, host = shop.controller, shop.client.host
    config = host.path / "unbound.conf"
    config.write_text(
        unbound_conf(
            dns_address="10.96.0.10", control_socket=host.path / "unbound.ctl", pid_file=host.path / "unbound.pid",
            pod_cidr="10.64.0.0/12", service_cidr="10.96.0.0/16",
        )
    )  # fmt: skip
    argv = ["nsenter", f"--net=/run/netns/{host.netns}", "unbound", "-d", "-c", str(config)]
    headless = ServiceItem(
        namespace="shop", name="peers", names=(DnsName(addresses=("10.64.2.3", "10.64.2.4")),
        DnsName(label="echo-1", addresses=("10.64.2.3",))), ports=(ServicePort(name="x", protocol="tcp", port=9),),
    )  # fmt: skip
    control.publish(CLUSTER, {"service/shop/peers": headless})
    for _ in range(2):  # the second one is a restarted resolver that has lost everything
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        shop.processes.append(process)
        wait_name(shop.client, "echo.shop.svc.cluster.local", ["10.96.0.90"])
        assert ask(shop.client, "peers.shop.svc.cluster.local") == ["10.64.2.3", "10.64.2.4"]
        assert ask(shop.client, "echo-1.peers.shop.svc.cluster.local") == ["10.64.2.3"]
        process.terminate()
        process.wait(5)


def wait_name(pod, name, answer):
    deadline = time.monotonic() + 10
    while ask(pod, name) != answer:
        assert time.monotonic() < deadline, (name, ask(pod, name), pod.host.log()[-1500:])
        time.sleep(0.1)


def ask(pod, name):
    """A lookup as pods do it, sent by hand: id 1, recursion desired, one A question."""
    question = b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    query = b"\0\1\1\0\0\1\0\0\0\0\0\0" + question
    done = subprocess.run(
        ["nsenter", f"--net={pod.path}", "socat", "-t", "0.3", "-", "UDP4:10.96.0.10:53"],
        input=query, capture_output=True, timeout=5,
    )  # fmt: skip
    answer, found = done.stdout, []
    if len(answer) < 12:
        return found
    offset = len(query)
    for _ in range(int.from_bytes(answer[6:8], "big")):
        size = int.from_bytes(answer[offset + 10 : offset + 12], "big")
        found.append(sockets.inet_ntoa(answer[offset + 12 : offset + 12 + size]))
        offset += 12 + size
    return sorted(found)


def test_latency_of_an_endpoint_change(shop):
    """From the manifest's arrival at the broker to the watermark, many times."""
    control = shop.controller
    took = []
    for number in range(30):
        control.publish(CLUSTER, {"service/shop/echo": echo(shop.servers[: 1 + number % 2])})
        control.wait_realized(CLUSTER, ["host-1"])
        watermark = control.watermark("host-1", CLUSTER)
        held = control.books[CLUSTER].changed_at
        took.append(watermark.committed_at - held)
    took.sort()
    print(f"endpoint change to commit: p50 {median(took) * 1000:.1f} ms, max {took[-1] * 1000:.1f} ms")
    assert took[-2] < 0.1

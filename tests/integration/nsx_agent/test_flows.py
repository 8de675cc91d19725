"""Flows that run while something changes: none outlives what allowed it, whoever was away at that moment."""

import time

import pytest

from common.messages import AddressSetItem, BlockItem, HostItem, InterestItem, PolicyItem, Scope

pytestmark = pytest.mark.integration
SHOP, CLUSTER = Scope.namespace("shop"), Scope.cluster()
MTU = 1400


@pytest.fixture(scope="module")
def pair(world):
    """A pod on each of two hosts, over an underlay that carries less than Ethernet does."""
    control = world.controller
    one, two = (world.add_host(start=False) for _ in range(2))
    for host in (one, two):
        host.run("ip", "link", "set", "eth0", "mtu", str(MTU))
        host.start()
    a, b = world.pod(one, "shop", "a", "10.64.6.2"), world.pod(two, "shop", "b", "10.64.6.18")
    control.publish(
        CLUSTER,
        {
            "host/host-1": HostItem(name="host-1", underlay=one.address),
            "host/host-2": HostItem(name="host-2", underlay=two.address),
            "block/10.64.6.0-28": BlockItem(cidr="10.64.6.0/28", vni=4101, host="host-1", namespace="shop"),
            "block/10.64.6.16-28": BlockItem(cidr="10.64.6.16/28", vni=4101, host="host-2", namespace="shop"),
        },
    )
    control.publish(SHOP, {})
    interest = {"interest/namespaces": InterestItem(namespaces=("shop",))}
    for pod in (a, b):
        control.publish(pod.host.scope, {**interest, f"port/{pod.uid}": pod.item()})
        assert pod.add()["ok"], pod.host.log()
    return world, a, b


class Echoes:
    """A ping that goes on, and how many answers it got."""

    def __init__(self, world, pod, address):
        self._path = world.path / f"ping-{time.monotonic_ns()}"
        self._process = pod.spawn("sh", "-c", f"exec ping -i 0.02 {address} > {self._path}")
        self.more("the ping begins")

    def count(self):
        return self._path.read_text().count("bytes from") if self._path.exists() else 0

    def more(self, what):
        before, deadline = self.count(), time.monotonic() + 10
        while self.count() <= before:
            assert time.monotonic() < deadline, what
            time.sleep(0.02)

    def stands_still(self):
        time.sleep(0.2)  # what was on its way
        before = self.count()
        time.sleep(0.5)
        return self.count() == before

    def end(self):
        self._process.kill()


def deny(world, pod):
    policy = PolicyItem(namespace="shop", name="shut", uid="s", selected="it", ingress=())
    chosen = AddressSetItem(id="it", members=(pod.address,))
    world.controller.publish(SHOP, {"policy/shut": policy, "set/it": chosen})
    world.controller.wait_realized(SHOP, ["host-1", "host-2"])


def allow(world):
    world.controller.publish(SHOP, {"policy/shut": None, "set/it": None})
    world.controller.wait_realized(SHOP, ["host-1", "host-2"])


def test_a_running_ping_is_cut_and_the_other_goes_on(pair):
    world, a, b = pair
    there, back = Echoes(world, a, b.address), Echoes(world, b, a.address)
    deny(world, b)
    assert there.stands_still()
    back.more("what no policy forbids")
    there.end()
    back.end()
    allow(world)


def test_a_flow_that_began_while_agent_and_table_were_away_is_cut(pair):
    world, a, b = pair
    deny(world, b)
    b.host.kill()
    b.host.run("nft", "delete", "table", "inet", "nsx")
    echoes = Echoes(world, a, b.address)
    b.host.start()
    assert echoes.stands_still()
    echoes.end()
    allow(world)


def test_a_flow_that_began_while_somebody_emptied_the_tables_is_cut(pair):
    world, a, b = pair
    deny(world, b)
    echoes = a.spawn("ping", "-q", "-i", "0.002", b.address)
    time.sleep(0.1)
    for _ in range(3):
        b.host.run("nft", "flush", "ruleset")
        deadline = time.monotonic() + 10
        while "goto deny_ingress" not in b.host.run("nft", "list", "ruleset"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    world.controller.publish(SHOP, {})
    world.controller.wait_realized(SHOP, ["host-2"])
    tracked = b.host.run("conntrack", "-L", "-p", "icmp", check=False)
    assert f"dst={b.address} type=8" not in tracked, "the flow is remembered as allowed"
    echoes.kill()
    allow(world)


def test_pods_use_what_the_underlay_carries(pair):
    _, a, b = pair
    inner = MTU - 50
    assert f"mtu {inner}" in a.run("ip", "link", "show", "eth0")
    assert f"mtu {inner}" in a.host.run("ip", "link", "show", "vxlan0")
    whole = inner - 28
    assert ", 0% packet loss" in a.run("ping", "-q", "-c", "2", "-W", "1", "-M", "do", "-s", str(whole), b.address)
    refused = a.run("ping", "-q", "-c", "1", "-W", "1", "-M", "do", "-s", str(whole + 1), b.address, check=False)
    assert ", 0% packet loss" not in refused
    assert ", 0% packet loss" in a.run("ping", "-q", "-c", "2", "-W", "1", "-s", "4000", b.address), "in fragments"

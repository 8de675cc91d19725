"""The agent's death is nobody's problem: traffic goes on, rules stay, a new agent adopts."""

import subprocess
import time
from pathlib import Path

import pytest

from common.messages import AddressSetItem, BlockItem, HostItem, InterestItem, PolicyItem, PolicyRule, Scope

pytestmark = pytest.mark.integration
SHOP, CLUSTER = Scope.namespace("shop"), Scope.cluster()


@pytest.fixture(scope="module")
def pair(world):
    """Two hosts, one pod each; ``b`` accepts only ``a``."""
    control = world.controller
    one, two = world.add_host(), world.add_host()
    a, b = world.pod(one, "shop", "a", "10.64.1.2"), world.pod(two, "shop", "b", "10.64.1.18")
    c = world.pod(one, "shop", "c", "10.64.1.3")
    control.publish(
        CLUSTER,
        {
            "host/host-1": HostItem(name="host-1", underlay=one.address),
            "host/host-2": HostItem(name="host-2", underlay=two.address),
            "block/10.64.1.0-28": BlockItem(cidr="10.64.1.0/28", vni=4097, host="host-1", namespace="shop"),
            "block/10.64.1.16-28": BlockItem(cidr="10.64.1.16/28", vni=4097, host="host-2", namespace="shop"),
        },
    )
    only_a = PolicyItem(
        namespace="shop", name="only-a", uid="p", selected="b", ingress=(PolicyRule(sets=("a",)),), egress=()
    )
    control.publish(
        SHOP,
        {
            "policy/only-a": only_a,
            "set/a": AddressSetItem(id="a", members=(a.address,)),
            "set/b": AddressSetItem(id="b", members=(b.address,)),
        },
    )
    interest = {"interest/namespaces": InterestItem(namespaces=("shop",))}
    control.publish(one.scope, {**interest, f"port/{a.uid}": a.item(), f"port/{c.uid}": c.item()})
    control.publish(two.scope, {**interest, f"port/{b.uid}": b.item()})
    for pod in (a, b, c):
        assert pod.add()["ok"], pod.host.log()
    return world, a, b, c


def ping(pod, address, count, interval_s=0.01):
    return subprocess.Popen(
        ["nsenter", f"--net={pod.path}", "ping", "-q", "-c", str(count), "-i", str(interval_s), "-W", "1", address],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def lost(process):
    output, _ = process.communicate(timeout=30)
    return next(line for line in output.splitlines() if "packet loss" in line)


def test_killed_agents_lose_and_leak_nothing_and_adopt(pair):
    _, a, b, c = pair
    allowed, denied = ping(a, b.address, 300), ping(c, b.address, 300)
    time.sleep(0.3)
    tables = [host.nft_list() for host in (a.host, b.host)]
    monitors = [a.host.monitor(), b.host.monitor()]
    for host in (a.host, b.host):
        host.kill()
    time.sleep(0.2)
    for host in (a.host, b.host):
        host.start()
    assert ", 0% packet loss" in lost(allowed)
    assert ", 100% packet loss" in lost(denied)
    for host in (a.host, b.host):
        assert "adopted the table" in host.log()
    assert [strip_counters(host.nft_list()) for host in (a.host, b.host)] == [strip_counters(t) for t in tables]
    assert [monitor() for monitor in monitors] == ["", ""], "a restart changes nothing in the kernel"


def strip_counters(table):
    """Lines in no particular order, without counts and stamp."""
    return sorted(line for line in table.splitlines() if "packets" not in line and "comment" not in line)


def test_flushed_table_is_restored(pair):
    _, a, b, c = pair
    before = strip_counters(b.host.nft_list())
    b.host.run("nft", "flush", "ruleset")
    deadline = time.monotonic() + 5
    while True:
        try:
            if strip_counters(b.host.nft_list()) == before:
                break
        except AssertionError:
            pass
        assert time.monotonic() < deadline, b.host.log()[-2000:]
        time.sleep(0.05)
    assert ", 100% packet loss" in lost(ping(c, b.address, 5))
    assert ", 0% packet loss" in lost(ping(a, b.address, 5))


@pytest.mark.parametrize(
    "harm",
    [
        "ip neigh flush dev vxlan0 nud permanent",
        "ip route del 10.64.1.16/28",
        "ip link set vxlan0 down",
        "ip link set vxlan0 address 02:00:00:00:00:01",
        "ip link del vxlan0",
        "ip link set $(ip -o link | grep -o 'nsx[0-9a-f]*@' | tr -d @ | head -1) down",
    ],
)
def test_what_somebody_removed_comes_back(pair, harm):
    _, a, b, _ = pair
    assert ", 0% packet loss" in lost(ping(a, b.address, 3))
    a.host.run("sh", "-c", harm)
    deadline = time.monotonic() + 5
    while ", 0% packet loss" not in lost(ping(a, b.address, 2)):
        assert time.monotonic() < deadline, a.host.log()[-2000:]


def test_looking_after_links_keeps_neighbours(pair):
    """A device that is given its address anew, even the same one, forgets its neighbours."""
    _, a, b, _ = pair
    seen = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{a.host.netns}", "ip", "monitor", "neigh"], stdout=subprocess.PIPE, text=True
    )
    a.host.run("sysctl", "-q", "net.ipv4.conf.vxlan0.forwarding=1")
    a.host.run("ip", "route", "add", "192.0.2.7", "dev", "lo", "proto", "73")
    a.host.run("ip", "route", "del", "192.0.2.7")  # heard, so the agent looks after everything
    wait_s = time.monotonic() + 5
    while "looking after routes" not in a.host.log():
        assert time.monotonic() < wait_s
        time.sleep(0.05)
    time.sleep(0.3)
    seen.terminate()
    assert "Deleted" not in seen.communicate(timeout=5)[0]
    assert ", 0% packet loss" in lost(ping(a, b.address, 3))


def test_restart_without_broker_enforces_from_disk(pair):
    world, a, b, c = pair
    b.host.kill()
    b.host.run("nft", "delete", "table", "inet", "nsx")
    world.broker.kill()
    world.broker.wait(5)
    b.host.start()
    assert ", 100% packet loss" in lost(ping(c, b.address, 5))
    assert ", 0% packet loss" in lost(ping(a, b.address, 5))


def test_memory(pair):
    _, a, _, _ = pair
    status = Path(f"/proc/{a.host.agent.pid}/status").read_text()
    rss_kib = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
    assert rss_kib < 60 * 1024, rss_kib
    print("rss", rss_kib)

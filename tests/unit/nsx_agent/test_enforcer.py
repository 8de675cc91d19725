"""Nothing is confirmed that the kernel does not hold, and no bad item, lost answer or full disk stops the rest."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from common.errors import Retryable
from common.messages import (
    AddressSetItem,
    Backend,
    HostItem,
    InterestItem,
    Manifest,
    Message,
    PolicyItem,
    PolicyRule,
    PortItem,
    Scope,
    ServiceItem,
    ServicePort,
    Watermark,
    encode,
    item_hash,
    set_digest,
)
from nsx_agent.config import AUDIT_S, FAILURES_MAX
from nsx_agent.desired import Desired
from nsx_agent.intent import Intent
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.kernel.links import PodLink
from nsx_agent.kernel.nft import Rejected
from nsx_agent.loop import Loop
from nsx_agent.model import ElementKey
from nsx_agent.state import Commit, StateDir
from tests.sim.agent import FakeResolver, NullMeter, site_of
from tests.sim.fakes.kernel import FakeKernel, KernelOptions

POD, PEER, UID = "10.64.0.5", "10.64.9.9", "uid-1"
CLUSTER, HOST, SHOP = Scope.cluster(), Scope.host("host-1"), Scope.namespace("shop")
DENY = PolicyItem(namespace="shop", name="deny", uid="u", selected="all", ingress=())
FORBIDDEN = Flow("tcp", PEER, POD, 80, POD, 80, b"x")
PORT = PortItem(pod_uid=UID, namespace="shop", name="p", address=POD, mac="02:73:0a:40:00:05", vni=4096)


class ManualClock:
    """Sleeping passes time at once."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.at += seconds


class Kernel(FakeKernel):
    """With flows, and with what it refuses. It outlives the agent."""

    def __init__(self) -> None:
        super().__init__(ManualClock(), random.Random(0), KernelOptions())
        self.running: list[Flow] = []
        self.cut: list[Flow] = []
        self.unreadable = 0
        self.refused = "nothing"
        self.prepared = 0
        self.order: list[str] = []

    def prepare(self) -> None:
        self.prepared += 1
        super().prepare()

    def flows(self, addresses: frozenset[str], *, udp: bool = False) -> list[Flow]:
        if self.unreadable:
            self.unreadable -= 1
            raise Retryable("list flows: No buffer space available")
        return [flow for flow in self.running if udp or addresses & {flow.source, flow.backend}]

    def drop_flow(self, flow: Flow) -> None:
        self.running.remove(flow)
        self.cut.append(flow)

    def drop_route(self, table: int, cidr: str) -> None:
        self.order.append(f"route {cidr}")
        super().drop_route(table, cidr)

    async def transaction(self, text: str) -> None:
        self.order.append("table")
        if self.refused in text:
            raise Rejected("Numerical result out of range")
        await super().transaction(text)


@dataclass
class Reports:
    sent: dict[str, Watermark] = field(default_factory=dict)

    def report(self, watermark: Watermark) -> None:
        self.sent[watermark.scope] = watermark

    def forget(self, path: str) -> None:
        self.sent.pop(path, None)

    def stores_changed(self) -> None: ...


class Agent:
    """A loop on ``kernel`` and ``path``; ``publish`` is the broker."""

    def __init__(self, path: Path, kernel: Kernel) -> None:
        self.desired = Desired("host-1")
        self.kernel = kernel
        self.clock = ManualClock()
        self.state = StateDir(path)
        site = site_of("host-1", "172.30.0.11")
        self.loop = Loop(self.desired, Intent(site), self.state, kernel, FakeResolver(), NullMeter(), self.clock)
        self.reports = Reports()
        self.loop.connect(self.reports)
        self.items: dict[Scope, dict[str, Message]] = {}
        self.revision = 0

    async def publish(self, scope: Scope, items: dict[str, Message]) -> None:
        """All items of a scope, then its manifest."""
        self.revision += 1
        raw = {key: encode(item) for key, item in items.items()}
        store = self.desired.by_path(scope.path)
        assert store is not None
        store.restart()
        for key, payload in raw.items():
            store.put(key, payload)
        digest = set_digest(item_hash(key, payload) for key, payload in raw.items())
        store.put_manifest(
            Manifest(epoch="e", revision=self.revision, count=len(raw), digest=digest, changed_at=self.clock.now())
        )

    async def settle(self) -> None:
        """Passes until one succeeds."""
        for _ in range(5):
            try:
                await self.loop.once()
                return
            except Retryable:
                await self.clock.sleep(1.0)
        raise AssertionError("no pass succeeds")

    def confirmed(self, scope: Scope) -> int:
        found = self.reports.sent.get(scope.path)
        return 0 if found is None else found.revision


WALL: dict[str, Message] = {"policy/deny": DENY, "set/all": AddressSetItem(id="all", members=(POD,))}


async def ready(path: Path, kernel: Kernel, wall: dict[str, Message] | None = None) -> Agent:
    """An agent with one pod, everything in force."""
    agent = Agent(path, kernel)
    await agent.loop.start()
    await agent.publish(CLUSTER, {"host/host-1": HostItem(name="host-1", underlay="172.30.0.11")})
    await agent.publish(HOST, {"interest/namespaces": InterestItem(namespaces=("shop",)), f"port/{UID}": PORT})
    await agent.settle()
    await agent.publish(SHOP, wall or {})
    await agent.settle()
    await kernel.ensure_pod_link(PodLink(UID, "/n", "eth0", POD, "02:73:0a:40:00:05", 1450))
    agent.loop.enforcer.connect(PORT)
    return agent


async def test_a_policy_is_not_confirmed_before_its_flows_are_cut(tmp_path: Path) -> None:
    kernel = Kernel()
    agent = await ready(tmp_path, kernel)
    kernel.running.append(FORBIDDEN)
    kernel.unreadable = 1
    await agent.publish(SHOP, WALL)
    with pytest.raises(Retryable):
        await agent.loop.once()
    assert ElementKey("ingress", POD) in kernel.entries
    assert agent.confirmed(SHOP) < agent.revision
    await agent.settle()
    assert kernel.cut == [FORBIDDEN]
    assert agent.confirmed(SHOP) == agent.revision


async def test_an_agent_that_died_before_it_cut_the_flows_cuts_them_when_it_is_back(tmp_path: Path) -> None:
    kernel = Kernel()
    first = await ready(tmp_path, kernel, WALL)
    first.state.close()
    kernel.running.append(FORBIDDEN)
    second = Agent(tmp_path, kernel)
    await second.loop.start()
    assert second.loop.enforcer.committed is not None
    assert kernel.cut == [FORBIDDEN]


async def test_flows_that_began_while_the_table_was_away_are_judged(tmp_path: Path) -> None:
    kernel = Kernel()
    agent = await ready(tmp_path, kernel, WALL)
    kernel.table = None
    kernel.running.append(FORBIDDEN)
    agent.loop.drift()
    await agent.settle()
    assert kernel.cut == [FORBIDDEN]
    assert ElementKey("ingress", POD) in kernel.entries


async def test_a_removal_that_the_kernel_refuses_is_not_confirmed_but_mended(tmp_path: Path) -> None:
    """The element is gone already: what else is not as it was left?"""
    kernel = Kernel()
    wall: dict[str, Message] = {
        "policy/deny": PolicyItem(
            namespace="shop", name="deny", uid="u", selected="all", ingress=(PolicyRule(sets=("few",)),)
        ),
        "set/all": AddressSetItem(id="all", members=(POD,)),
    }
    agent = await ready(tmp_path, kernel, {**wall, "set/few": AddressSetItem(id="few", members=(PEER, "10.64.9.8"))})
    members = [key for key in kernel.entries if isinstance(key, ElementKey) and key.key == PEER]
    assert members
    for key in members:
        del kernel.table.entries[key]  # type: ignore[union-attr]
    await agent.publish(SHOP, {**wall, "set/few": AddressSetItem(id="few", members=())})
    with pytest.raises(Retryable, match="removal"):
        await agent.loop.once()
    assert agent.confirmed(SHOP) < agent.revision
    await agent.settle()
    assert agent.confirmed(SHOP) == agent.revision
    left = [key for key in kernel.entries if isinstance(key, ElementKey) and key.key in (PEER, "10.64.9.8")]
    assert not left


def service(name: str, number: int, **more: int) -> ServiceItem:
    port = ServicePort(protocol="tcp", port=80, backends=(Backend(address=POD, port=80, host="host-1"),))
    return ServiceItem(namespace="shop", name=name, cluster_ip=f"10.96.0.{number}", ports=(port,), **more)


async def test_an_item_that_only_the_kernel_refuses_stops_nothing_ever(tmp_path: Path) -> None:
    kernel = Kernel()
    kernel.refused = "timeout 77s"
    agent = await ready(tmp_path, kernel, WALL)
    host: dict[str, Message] = {"host/host-1": HostItem(name="host-1", underlay="172.30.0.11")}
    services: dict[str, Message] = {
        "service/shop/bad": service("bad", 1, affinity_s=77),
        "service/shop/good": service("good", 2),
    }
    good, bad = (ElementKey("services", f"10.96.0.{number} . tcp . 80") for number in (2, 1))
    await agent.publish(CLUSTER, host | services)
    await agent.settle()
    for _ in range(2):
        assert [failure.key for failure in agent.reports.sent["cluster"].failures] == ["service/shop/bad"]
        assert good in kernel.entries
        assert bad not in kernel.entries
        assert ElementKey("ingress", POD) in kernel.entries
        kernel.table = None  # the whole table has to be built, with the bad item in it
        agent.loop.drift()
        await agent.settle()
    agent.state.close()
    later = Agent(tmp_path, kernel)
    await later.loop.start()
    await later.settle()
    assert good in kernel.entries
    assert [failure.key for failure in later.reports.sent["cluster"].failures] == ["service/shop/bad"]
    kernel.refused = "nothing"
    await later.clock.sleep(AUDIT_S + 1)
    await later.settle()
    assert bad in kernel.entries
    assert later.reports.sent["cluster"].failures == ()


async def test_a_restart_does_not_forget_that_something_is_missing(tmp_path: Path) -> None:
    """Commits that go well after one that did not must not stamp the table as whole."""
    kernel = Kernel()
    kernel.refused = "timeout 77s"
    agent = await ready(tmp_path, kernel)
    host: dict[str, Message] = {"host/host-1": HostItem(name="host-1", underlay="172.30.0.11")}
    bad: dict[str, Message] = {"service/shop/bad": service("bad", 1, affinity_s=77)}
    await agent.publish(CLUSTER, host | bad)
    await agent.settle()
    await agent.publish(CLUSTER, host | bad | {"service/shop/good": service("good", 2)})
    await agent.settle()
    agent.state.close()
    later = Agent(tmp_path, kernel)
    await later.loop.start()
    await later.settle()
    assert [failure.key for failure in later.reports.sent["cluster"].failures] == ["service/shop/bad"]


async def test_a_disk_that_refuses_stops_nothing_and_is_not_trusted_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel()
    agent = await ready(tmp_path, kernel)

    def full(self: StateDir, commit: Commit) -> None:
        raise Retryable("No space left on device")

    monkeypatch.setattr(StateDir, "append", full)
    await agent.publish(SHOP, WALL)
    await agent.settle()
    assert agent.confirmed(SHOP) == agent.revision
    assert ElementKey("ingress", POD) in kernel.entries
    monkeypatch.undo()
    agent.state.close()
    later = Agent(tmp_path, kernel)
    await later.loop.start()
    await later.loop.once()
    assert ElementKey("ingress", POD) in kernel.entries, "the disk knows no policy, the kernel does"
    assert later.reports.sent == {}


async def test_half_an_intent_on_disk_does_not_replace_a_table_that_is_not_known(tmp_path: Path) -> None:
    kernel = Kernel()
    first = await ready(tmp_path / "one", kernel, WALL)
    first.state.close()
    before = dict(kernel.entries)
    second = Agent(tmp_path / "two", kernel)
    await second.loop.start()
    await second.publish(CLUSTER, {"host/host-1": HostItem(name="host-1", underlay="172.30.0.11")})
    await second.settle()
    second.state.close()  # dies when it has heard of one scope only
    third = Agent(tmp_path / "two", kernel)
    await third.loop.start()
    await third.settle()
    assert kernel.entries == before


async def test_what_nobody_asks_about_is_looked_after_however_busy_it_is(tmp_path: Path) -> None:
    kernel = Kernel()
    agent = await ready(tmp_path, kernel)
    before = kernel.prepared
    kernel.routing.clear()
    for _ in range(int(AUDIT_S) + 2):
        await agent.publish(SHOP, {})
        await agent.loop.once()
        await agent.clock.sleep(1.0)
    assert kernel.prepared == before + 1
    assert (254, f"{POD}/32") in kernel.routing


async def test_the_route_of_a_pod_that_leaves_goes_before_its_policies(tmp_path: Path) -> None:
    kernel = Kernel()
    agent = await ready(tmp_path, kernel, WALL)
    kernel.order.clear()
    await agent.publish(HOST, {"interest/namespaces": InterestItem(namespaces=("shop",))})
    await agent.settle()
    assert kernel.order[:1] == [f"route {POD}/32"]
    assert ElementKey("ingress", POD) not in kernel.entries


async def test_a_watermark_fits_into_a_message_whatever_fails(tmp_path: Path) -> None:
    agent = await ready(tmp_path, Kernel())
    host: dict[str, Message] = {"host/host-1": HostItem(name="host-1", underlay="172.30.0.11")}
    bad: dict[str, Message] = {
        f"service/shop/s{number}": ServiceItem(namespace="shop", name=f"s{number}", cluster_ip="x" * 60,
                                               ports=(ServicePort(protocol="tcp", port=80),))
        for number in range(5000)
    }  # fmt: skip
    await agent.publish(CLUSTER, host | bad)
    await agent.settle()
    failures = agent.reports.sent["cluster"].failures
    assert len(failures) == FAILURES_MAX + 1
    assert "4900 more" in failures[-1].reason


async def test_two_services_that_want_the_same_port_of_hosts_do_not_both_count_as_in_force(tmp_path: Path) -> None:
    kernel = Kernel()
    agent = await ready(tmp_path, kernel)
    host: dict[str, Message] = {"host/host-1": HostItem(name="host-1", underlay="172.30.0.11")}

    def node_port(name: str, number: int, port: int) -> ServiceItem:
        backend = Backend(address=f"10.64.0.{number}", port=80, host="host-1")
        ports = (ServicePort(protocol="tcp", port=80, node_port=port, backends=(backend,)),)
        return ServiceItem(namespace="shop", name=name, cluster_ip=f"10.96.0.{number}", ports=ports)

    one, two = {"service/shop/a": node_port("a", 1, 30000)}, {"service/shop/b": node_port("b", 2, 30000)}
    await agent.publish(CLUSTER, {**host, **one, **two})
    await agent.settle()
    [failure] = agent.reports.sent["cluster"].failures
    assert failure.key == "service/shop/b"
    assert "service/shop/a" in failure.reason
    assert "30000" in failure.reason
    await agent.publish(CLUSTER, {**host, **two})
    await agent.settle()
    assert agent.reports.sent["cluster"].failures == ()
    assert kernel.entries[ElementKey("nodeslots", "tcp . 30000 . 0")] == "10.64.0.2 . 80"

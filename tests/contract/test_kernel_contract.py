"""One suite for the real kernel, in a network namespace of its own, and the fake: what nsx-agent relies on."""

import asyncio
import ctypes
import json
import os
import random
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from common.clock import SystemClock
from common.errors import Retryable
from common.messages import AddressSetItem, PolicyItem, PolicyPort, PolicyRule
from nsx_agent import apply as writer
from nsx_agent.apply import Kernel
from nsx_agent.kernel import elements, nft, ownership
from nsx_agent.kernel.host import HostKernel
from nsx_agent.kernel.links import PodLink
from nsx_agent.kernel.nft import TABLE, Rejected
from nsx_agent.model import (
    ChainKey,
    ChainSpec,
    Change,
    DropElement,
    ElementKey,
    Key,
    PutElement,
    Route,
    RouteKind,
    SetKey,
    SetSpec,
    Value,
)
from nsx_agent.plan import plan
from nsx_agent.render import firewall, skeleton
from nsx_agent.render.firewall import NamespaceFirewall
from tests.sim.agent import site_of
from tests.sim.fakes.kernel import FakeKernel, KernelOptions

pytestmark = pytest.mark.integration
CLONE_NEWNET = 0x40000000
Body = Callable[[Kernel], Awaitable[None]]
Run = Callable[[Body], None]
POD = "10.64.0.5"
UID = "tsim-kernel-contract"
PLAIN, VERDICTS = SetSpec("set", "ipv4_addr"), SetSpec("map", "ipv4_addr : verdict")
BASE: dict[Key, Value] = {
    SetKey("s_1"): PLAIN,
    SetKey("egress"): VERDICTS,
    ChainKey("group"): ChainSpec(("ip daddr @s_1 accept", "drop")),
    ElementKey("s_1", "10.64.0.9"): "",
    ElementKey("egress", POD): "goto group",
}


ETH0 = ("link add eth0 type veth peer name peer0", "addr add 172.30.0.11/24 dev eth0", "link set eth0 up")


def in_namespace(body: Body) -> None:
    """Run ``body`` on the real kernel, in a thread whose network namespace nobody else has."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            for command in ETH0:
                subprocess.run(["ip", *command.split()], check=True, timeout=20)
            asyncio.run(on_host(body))
        except BaseException as err:
            failures.append(err)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(100)
    if failures:
        raise failures[0]
    assert not thread.is_alive()


async def on_host(body: Body) -> None:
    kernel = HostKernel("10.96.0.10", "172.30.0.11", "eth0")
    try:
        await body(kernel)
    finally:
        kernel.close()


def in_memory(body: Body) -> None:
    """Run ``body`` on the fake."""

    async def work() -> None:
        await body(FakeKernel(SystemClock(), random.Random(0), KernelOptions()))

    asyncio.run(work())


@pytest.fixture(params=["kernel", "fake"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "kernel" and os.geteuid() != 0:
        pytest.skip("needs root")
    return in_namespace if request.param == "kernel" else in_memory


@pytest.fixture
def pod_netns() -> Iterator[Path]:
    name = f"tsim-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    yield Path("/run/netns") / name
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)


def held(kernel: Kernel, name: str) -> dict[str, str]:
    """Elements of a set of addresses or a map from addresses to verdicts, as ``nsx_agent.model`` writes them."""
    if isinstance(kernel, FakeKernel):
        entries = kernel.entries.items()
        return {key.key: str(data) for key, data in entries if isinstance(key, ElementKey) and key.set == name}
    listed = subprocess.run(["nft", "-j", "list", "table", *TABLE.split()], capture_output=True, timeout=20, check=True)
    found: dict[str, str] = {}
    for entry in json.loads(listed.stdout)["nftables"]:
        described = entry.get("set") or entry.get("map") or {}
        if described.get("name") != name:
            continue
        for element in described.get("elem", ()):
            if isinstance(element, list):
                verb, target = next(iter(element[1].items()))
                found[element[0]] = f"{verb} {target['target']}" if target else verb
            else:
                found[element] = ""
    return found


async def make(kernel: Kernel, entries: dict[Key, Value], stamp: str) -> None:
    await kernel.transaction(nft.replacement() + nft.prologue({"denied": 0}) + nft.whole(entries) + nft.stamp(stamp))


def test_the_stamp_tells_what_the_table_holds(run: Run) -> None:
    async def body(kernel: Kernel) -> None:
        assert await kernel.stamp() is None
        with pytest.raises(Rejected):
            await kernel.transaction(nft.stamp("early"))
        assert await kernel.stamp() is None
        await kernel.transaction(nft.prologue({"denied": 0, "other": 7}))
        assert await kernel.stamp() == ""
        assert sorted(await kernel.counters()) == ["denied", "other"]
        await kernel.transaction(nft.stamp("one.1"))
        await kernel.transaction(nft.prologue({"denied": 0}))
        assert await kernel.stamp() == "one.1"
        await make(kernel, BASE, "two.2")
        assert await kernel.stamp() == "two.2"
        assert held(kernel, "egress") == {POD: "goto group"}
        assert held(kernel, "s_1") == {"10.64.0.9": ""}

    run(body)


@pytest.mark.parametrize(
    "refused",
    [
        f"delete element {TABLE} s_1 {{ 10.64.0.77 }}",
        f"add element {TABLE} egress {{ {POD} : drop }}",
        f"add element {TABLE} egress {{ 10.64.0.6 : goto nowhere }}",
        f"add rule {TABLE} group ip daddr @missing accept",
        f"delete chain {TABLE} group",
        f"delete set {TABLE} s_1",
        f"delete set {TABLE} missing",
        f"flush chain {TABLE} missing",
    ],
)
def test_a_refused_script_changes_nothing(run: Run, refused: str) -> None:
    async def body(kernel: Kernel) -> None:
        await make(kernel, BASE, "x.1")
        begin = f"add element {TABLE} s_1 {{ 10.64.0.10 }}\n"
        with pytest.raises(Rejected):
            await kernel.transaction(f"{begin}{refused}\n{nft.stamp('x.2')}")
        assert await kernel.stamp() == "x.1"
        assert held(kernel, "s_1") == {"10.64.0.9": ""}
        assert held(kernel, "egress") == {POD: "goto group"}

    run(body)


def test_single_elements_take_the_short_way(run: Run) -> None:
    def encoded(changes: list[Change], stamp: str) -> list[elements.Part]:
        specs = {"s_1": PLAIN, "egress": VERDICTS}
        parts = elements.encode(changes, nft.STAMP_SET, stamp, specs.get)
        assert parts is not None
        return parts

    async def body(kernel: Kernel) -> None:
        await make(kernel, BASE, "x.1")
        changes: list[Change] = [
            PutElement("egress", POD, "drop", "goto group"),
            PutElement("egress", "10.64.0.6", "goto group"),
            DropElement("s_1", "10.64.0.9", ""),
            PutElement("s_1", "10.64.0.10", ""),
        ]
        await kernel.element_transaction(encoded(changes, "x.2"))
        assert await kernel.stamp() == "x.2"
        assert held(kernel, "egress") == {POD: "drop", "10.64.0.6": "goto group"}
        assert held(kernel, "s_1") == {"10.64.0.10": ""}
        for bad in (
            DropElement("s_1", "10.64.0.77", ""),
            PutElement("egress", POD, "goto group"),
            PutElement("egress", "10.64.0.7", "goto nowhere"),
        ):
            with pytest.raises(Rejected):
                await kernel.element_transaction(encoded([PutElement("s_1", "10.64.0.11", ""), bad], "x.3"))
            assert await kernel.stamp() == "x.2"
            assert held(kernel, "s_1") == {"10.64.0.10": ""}

    run(body)


def test_the_largest_transaction_may_replace_every_element(run: Run) -> None:
    """Acknowledgements of single messages would overflow the socket: the change was made, and seemed lost."""

    async def body(kernel: Kernel) -> None:
        await make(kernel, BASE, "x.1")
        keys = [f"10.65.{number >> 8}.{number & 255}" for number in range(nft.ELEMENTS_MAX)]
        for number, (data, before) in enumerate([("goto group", None), ("drop", "goto group")]):
            changes = [PutElement("egress", key, data, before) for key in keys]
            parts = elements.encode(changes, nft.STAMP_SET, f"x.{number}", {"egress": VERDICTS}.get)
            assert parts is not None
            await kernel.element_transaction(parts)
            assert await kernel.stamp() == f"x.{number}"
            assert held(kernel, "egress") == {POD: "goto group", **dict.fromkeys(keys, data)}

    run(body)


def test_a_pods_route_goes_with_its_link(run: Run, pod_netns: Path) -> None:
    name = ownership.link_name(UID)
    route = Route(f"{POD}/32", RouteKind.DIRECT, device=name, source="172.30.0.11")
    hole = Route("10.64.0.0/12", RouteKind.BLACKHOLE)
    link = PodLink(UID, str(pod_netns), "eth0", POD, "02:73:0a:40:00:05", 1450)

    def routed(kernel: Kernel) -> set[str]:
        return {seen.cidr for seen in kernel.routes()}

    async def body(kernel: Kernel) -> None:
        kernel.prepare()
        kernel.prepare()
        assert kernel.pod_links() == set()
        with pytest.raises(Retryable):
            kernel.put_route(route)
        await kernel.ensure_pod_link(link)
        await kernel.ensure_pod_link(link)
        assert kernel.pod_links() == {name}
        for _ in range(2):
            kernel.put_route(route)
            kernel.put_route(hole)
        assert routed(kernel) == {f"{POD}/32", "10.64.0.0/12"}
        await kernel.drop_pod_link(name)
        await kernel.drop_pod_link(name)
        assert kernel.pod_links() == set()
        assert routed(kernel) == {"10.64.0.0/12"}
        kernel.drop_route(254, "10.64.0.0/12")
        kernel.drop_route(254, "10.64.0.0/12")
        assert routed(kernel) == set()

    run(body)


def a_wall(rng: random.Random) -> dict[Key, Value]:
    """The rendered firewall of a namespace, on top of what is always there."""
    pods = [f"10.64.0.{number}" for number in range(1, 7)]
    sets = {name: AddressSetItem(id=name, members=tuple(sorted(rng.sample(pods, 3)))) for name in "abc"}
    blocks = ["0.0.0.0/0", "10.64.0.0/29", "10.64.0.0/30", "10.64.0.4/30", "10.64.0.2/32", "10.64.0.3/32"]
    sets["x"] = AddressSetItem(id="x", members=(rng.choice(blocks),), excluded=tuple(rng.sample(blocks[1:], 2)))
    ports = (
        PolicyPort(protocol="tcp", port=80),
        PolicyPort(protocol="tcp", port=70, end_port=rng.randint(80, 90)),
        PolicyPort(protocol="sctp"),
        PolicyPort(protocol="udp", port=-1, pairs=((rng.choice(pods), 53),)),
    )
    policies = {
        f"policy/p{number}": PolicyItem(
            namespace="n",
            name=f"p{number}",
            uid=str(number),
            selected=rng.choice("abc"),
            ingress=(PolicyRule(sets=(rng.choice("abcx"), "x"), ports=tuple(rng.sample(ports, 2))),),
            egress=rng.choice([None, (PolicyRule(any_peer=True),)]),
        )
        for number in range(rng.randint(0, 3))
    }
    local = tuple(sorted(rng.sample(pods, rng.randint(0, 6))))
    wall = firewall.render(NamespaceFirewall("n", True, sets, policies, local))[0]
    always = skeleton.render(site_of("host-1", "172.30.0.11")).items()
    return {**{key: value for key, value in always if not isinstance(value, Route)}, **wall}


@pytest.mark.parametrize("seed", range(3))
def test_plans_of_the_agent_lead_both_to_the_same(run: Run, seed: int) -> None:
    async def body(kernel: Kernel) -> None:
        rng = random.Random(seed)
        now: dict[Key, Value] = {}
        await kernel.transaction(nft.prologue(dict.fromkeys(skeleton.COUNTERS, 0)))
        for number in range(8):
            want = a_wall(rng)
            changes = plan(want, now)
            outcome = await writer.apply(kernel, changes, f"x.{number}", lambda key: "", lambda name: None)
            assert outcome.failed == {}
            writer.record(now, outcome.done)
            assert now == want
            for name in ("ingress", "egress"):
                wanted = {k.key: v for k, v in want.items() if isinstance(k, ElementKey) and k.set == name}
                assert held(kernel, name) == wanted
            for name in {key.name for key in want if isinstance(key, SetKey) and key.name.startswith("s_")}:
                wanted = {k.key: v for k, v in want.items() if isinstance(k, ElementKey) and k.set == name}
                assert held(kernel, name) == wanted

    run(body)

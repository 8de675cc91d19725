"""Planning of a host's network: convergence, independence of order, and what an interrupted plan may open."""

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import AddressSetItem, PolicyItem, PolicyPort, PolicyRule
from nsx_agent.apply import record
from nsx_agent.compose import Composite
from nsx_agent.flows import Verdicts
from nsx_agent.kernel import nft
from nsx_agent.model import ChainKey, ChainSpec, ElementKey, SetKey
from nsx_agent.plan import plan
from nsx_agent.render import firewall
from nsx_agent.render.firewall import NamespaceFirewall

PODS = tuple(f"10.64.0.{n}" for n in range(1, 7))
SETS, CIDRS = ("a", "b", "c", "d"), ("x", "y")
addresses = st.lists(st.sampled_from(PODS), unique=True).map(lambda found: tuple(sorted(found)))
PROTOCOLS = ("tcp", "udp", "sctp")
ports = st.one_of(
    st.builds(PolicyPort, protocol=st.sampled_from(PROTOCOLS), port=st.sampled_from([0, 80, 90])),
    st.builds(
        PolicyPort, protocol=st.sampled_from(PROTOCOLS), port=st.just(79), end_port=st.sampled_from([79, 80, 500])
    ),
    st.builds(
        PolicyPort,
        protocol=st.sampled_from(PROTOCOLS),
        port=st.just(-1),
        pairs=st.lists(st.tuples(st.sampled_from(PODS), st.sampled_from([80, 443])), max_size=3).map(tuple),
    ),
)
blocks = st.sampled_from(["0.0.0.0/0", "10.64.0.0/29", "10.64.0.0/30", "10.64.0.4/30", "10.64.0.2/32"])
rules = st.builds(
    PolicyRule,
    any_peer=st.booleans(),
    sets=st.lists(st.sampled_from(SETS + CIDRS), unique=True, max_size=2).map(tuple),
    ports=st.lists(ports, max_size=2).map(tuple),
)
directions = st.none() | st.lists(rules, max_size=2).map(tuple)
policies = st.lists(st.tuples(st.sampled_from(SETS), directions, directions), max_size=3)


@st.composite
def firewalls(draw):
    sets = {name: AddressSetItem(id=name, members=draw(addresses)) for name in SETS}
    for name in CIDRS:
        holes = tuple(draw(st.lists(blocks, max_size=2)))
        sets[name] = AddressSetItem(id=name, members=(draw(blocks),), excluded=holes)
    items = {
        f"policy/p{number}": PolicyItem(
            namespace="n", name=f"p{number}", uid=str(number), selected=selected, ingress=ingress, egress=egress
        )
        for number, (selected, ingress, egress) in enumerate(draw(policies))
    }
    return NamespaceFirewall("n", True, sets, items, PODS)


class Packet:
    """Walks rendered entries as the kernel would. Anything it does not know is an error."""

    def __init__(self, entries):
        self.entries = entries

    def passes(self, source, destination, protocol, port):
        self.source, self.destination, self.protocol, self.port = source, destination, protocol, port
        verdict = self._verdict("egress", source)
        return verdict == "arrive" and self._verdict("ingress", destination) in ("accept", "arrive")

    def _verdict(self, direction, pod):
        data = self.entries.get(ElementKey(direction, pod))
        if data is None:
            return "arrive"
        return "drop" if data == "drop" else self._chain(data.removeprefix("goto "))

    def _chain(self, name):
        spec = self.entries[ChainKey(name)] if not name.startswith("deny_") else ChainSpec(("drop",))
        for rule in spec.rules:
            words = rule.split()
            if words[0] == "jump":
                verdict = self._chain(words[1])
                if verdict != "continue":
                    return verdict
            elif words[0] == "goto":
                return "arrive" if words[1] == "arrive" else self._chain(words[1])
            elif words[0] == "drop":
                return "drop"
            elif self._matches(words):
                return "arrive" if words[-1] == "arrive" else words[-1]
        return "continue"

    def _matches(self, words):
        rest = list(words)
        rest = rest[:-2] if rest[-2:] == ["goto", "arrive"] else rest[:-1]
        while rest:
            if rest[0] == "ip" and rest[2].startswith("@"):
                address = self.source if rest[1] == "saddr" else self.destination
                assert SetKey(rest[2][1:]) in self.entries
                if not self._holds(rest[2][1:], address):
                    return False
                rest = rest[3:]
            elif rest[:3] == ["ip", "daddr", "."]:
                protocol, name = rest[3], rest[5].removeprefix("@")
                assert SetKey(name) in self.entries
                pair = ElementKey(name, f"{self.destination} . {self.port}")
                if protocol != self.protocol or pair not in self.entries:
                    return False
                rest = rest[6:]
            elif rest[:2] == ["meta", "l4proto"]:
                if rest[2] != self.protocol:
                    return False
                rest = rest[3:]
            elif rest[1] == "dport" and rest[2] == "{":
                end = rest.index("}")
                if rest[0] != self.protocol or str(self.port) not in " ".join(rest[3:end]).split(", "):
                    return False
                rest = rest[end + 1 :]
            elif rest[1] == "dport":
                first, _, last = rest[2].partition("-")
                if rest[0] != self.protocol or not int(first) <= self.port <= int(last):
                    return False
                rest = rest[3:]
            else:
                raise AssertionError(f"unknown rule syntax: {' '.join(rest)}")
        return True

    def _holds(self, name, address):
        if ElementKey(name, address) in self.entries:
            return True
        ranges = [key.key for key in self.entries if isinstance(key, ElementKey) and key.set == name and "/" in key.key]
        return any(ipaddress.IPv4Address(address) in ipaddress.IPv4Network(one) for one in ranges)


def everything():
    return [
        (source, destination, protocol, port)
        for source in PODS[:4]
        for destination in PODS[:4]
        if source != destination
        for protocol in PROTOCOLS
        for port in (80, 443)
    ]


@settings(max_examples=60, deadline=None)
@given(firewalls())
def test_elements_of_one_interval_set_never_overlap(wall):
    """nft refuses such a set."""
    entries, _ = firewall.render(wall)
    for spec in [key for key, value in entries.items() if isinstance(key, SetKey) and value == firewall.RANGES]:
        keys = [key.key for key in entries if isinstance(key, ElementKey) and key.set == spec.name]
        found = [ipaddress.IPv4Network(key) for key in keys]
        assert not [(a, b) for a in found for b in found if a is not b and a.overlaps(b)]


@settings(max_examples=60, deadline=None)
@given(firewalls())
def test_rendered_rules_say_what_the_judge_of_flows_says(wall):
    entries, failures = firewall.render(wall)
    assert failures == ()
    judge, packet = Verdicts(wall), Packet(entries)
    for source, destination, protocol, port in everything():
        expected = judge.allows("egress", source, destination, protocol, destination, port) and judge.allows(
            "ingress", destination, source, protocol, destination, port
        )
        assert packet.passes(source, destination, protocol, port) == expected


@settings(max_examples=60, deadline=None)
@given(firewalls(), firewalls())
def test_plans_converge_and_no_prefix_opens_what_both_ends_deny(before, after):
    seen, want = firewall.render(before)[0], firewall.render(after)[0]
    changes = plan(want, seen)
    assert changes == plan(dict(reversed(want.items())), dict(reversed(seen.items())))
    denied = [flow for flow in everything() if not Packet(seen).passes(*flow) and not Packet(want).passes(*flow)]
    state = dict(seen)
    for change in changes:
        record(state, [change])
    assert state == want
    assert plan(want, state) == ()
    state = dict(seen)
    for part in nft.chunks(changes, limit=1):
        record(state, part)
        for flow in denied:
            assert not Packet(state).passes(*flow), (flow, part)


@given(st.permutations([("x", 1), ("y", 2), ("z", 1)]), st.permutations(["x", "y", "z"]))
def test_composite_does_not_depend_on_order(offers, withdrawals):
    key = SetKey("s")
    composite = Composite()
    for owner, value in offers:
        composite.replace(owner, {key: str(value)})
    assert composite.entries[key] == "1"
    assert composite.owner_of(key) == "x"
    left = {"x": "1", "y": "2", "z": "1"}
    for owner in withdrawals:
        composite.replace(owner, {})
        del left[owner]
        assert composite.entries.get(key) == (left[min(left)] if left else None)

"""Planning of a host's network: convergence, independence of order, and what an interrupted plan may open."""

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
SETS = ("a", "b", "c", "d")
addresses = st.lists(st.sampled_from(PODS), unique=True).map(lambda found: tuple(sorted(found)))
ports = st.builds(
    PolicyPort, protocol=st.sampled_from(["tcp", "udp"]), port=st.sampled_from([0, 80, 90]),
).map(lambda one: one)  # fmt: skip
rules = st.builds(
    PolicyRule,
    any_peer=st.booleans(),
    sets=st.lists(st.sampled_from(SETS), unique=True, max_size=2).map(tuple),
    ports=st.lists(ports, max_size=2).map(tuple),
)
directions = st.none() | st.lists(rules, max_size=2).map(tuple)
policies = st.lists(st.tuples(st.sampled_from(SETS), directions, directions), max_size=3)


@st.composite
def firewalls(draw):
    sets = {name: AddressSetItem(id=name, members=draw(addresses)) for name in SETS}
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
                if ElementKey(rest[2][1:], address) not in self.entries:
                    return False
                rest = rest[3:]
            elif rest[:2] == ["meta", "l4proto"]:
                if rest[2] != self.protocol:
                    return False
                rest = rest[3:]
            elif rest[1] == "dport" and rest[2] == "{":
                end = rest.index("}")
                if rest[0] != self.protocol or str(self.port) not in " ".join(rest[3:end]).split(", "):
                    return False
                rest = rest[end + 1 :]
            else:
                raise AssertionError(f"unknown rule syntax: {' '.join(rest)}")
        return True


def everything():
    return [
        (source, destination, protocol, port)
        for source in PODS[:4]
        for destination in PODS[:4]
        if source != destination
        for protocol in ("tcp", "udp")
        for port in (80, 443)
    ]


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

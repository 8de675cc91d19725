"""Connection tracking, which is slow to read, is read when a commit can have left flows behind, and only then."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from common.messages import PolicyItem
from nsx_agent.apply import Kernel
from nsx_agent.cuts import balancer_changes, cut_flows, new_ports
from nsx_agent.flows import Balanced, astray, orphaned
from nsx_agent.intent import Intent
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.model import Change, DropElement, PutElement
from nsx_agent.render.firewall import NamespaceFirewall
from tests.sim.agent import site_of

POD, PEER = "10.64.0.5", "10.64.9.9"
NEW_PORT = PutElement("ports", f'"s1234" . 02:73:0a:40:00:05 . {POD}', "")
OLD_FLOW = Flow("tcp", PEER, POD, 80, POD, 80, b"")
DENY = PolicyItem(namespace="n", name="deny", uid="u", selected="s", ingress=())


@dataclass
class Tracked:
    """A kernel with one flow to the pod."""

    asked: list[frozenset[str]] = field(default_factory=list)
    dropped: list[Flow] = field(default_factory=list)

    def flows(self, addresses: frozenset[str], *, udp: bool = False) -> list[Flow]:
        self.asked.append(addresses)
        return [OLD_FLOW]

    def drop_flow(self, flow: Flow) -> None:
        self.dropped.append(flow)


class Knows:
    """An intent with one namespace."""

    class site:
        dns_address = "10.96.0.10"

    def __init__(self, complete: bool, policies: dict[str, Any]) -> None:
        self._firewall = NamespaceFirewall("n", complete, {}, policies, (POD,))

    def firewall(self, _: str) -> NamespaceFirewall:
        return self._firewall

    def host_addresses(self) -> frozenset[str]:
        return frozenset({"172.30.0.11"})


def cut(done: Iterable[Change], *, complete: bool, policies: dict[str, Any] | None = None) -> Tracked:
    kernel = Tracked()
    intent = cast(Intent, Knows(complete, policies or {}))
    cut_flows(cast(Kernel, kernel), intent, done, frozenset({"n"}))
    return kernel


@pytest.mark.parametrize("complete", [True, False])
def test_a_new_pod_that_nobody_isolates_costs_no_look(complete: bool) -> None:
    assert cut([NEW_PORT], complete=complete).asked == []


def test_a_new_pod_that_is_isolated_does_not_inherit_flows_of_its_address() -> None:
    kernel = cut([NEW_PORT], complete=True, policies={"deny": DENY})
    assert kernel.asked == [frozenset({POD})]
    assert kernel.dropped == [OLD_FLOW]


def test_an_old_pod_loses_its_flows_when_its_namespace_is_not_complete_any_more() -> None:
    assert cut([], complete=False).dropped == [OLD_FLOW]


def test_only_ports_that_were_put_are_new() -> None:
    gone = DropElement("ports", f'"s1" . 02:73:0a:40:00:06 . {PEER}', "")
    other = PutElement("hairpin", "10.64.0.7 . 10.64.0.7", "")
    assert new_ports([NEW_PORT, gone, other]) == {POD}


def test_flows_of_removed_and_past_new_udp_backends_are_found() -> None:
    done = [
        DropElement("slots", "10.96.0.1 . udp . 53 . 0", "10.64.0.9 . 5353"),
        PutElement("nodeslots", "udp . 30053 . 0", "10.64.0.8 . 5353", "10.64.0.9 . 5353"),
        PutElement("nodeports", "udp . 30099", "goto nodelb_1"),
        PutElement("services", "10.96.0.1 . tcp . 80", "goto lb_1"),
    ]
    removed, fresh = balancer_changes(done)
    assert removed == {Balanced("10.96.0.1", 53, "10.64.0.9", 5353), Balanced("", 30053, "10.64.0.9", 5353)}
    assert fresh == {("", 30099)}
    hosts = frozenset({"172.30.0.11"})
    left = Flow("udp", POD, "10.96.0.1", 53, "10.64.0.9", 5353, b"1")
    by_node = Flow("udp", PEER, "172.30.0.11", 30053, "10.64.0.9", 5353, b"2")
    past = Flow("udp", PEER, "172.30.0.11", 30099, "172.30.0.11", 30099, b"3")
    others = [
        Flow("udp", POD, "10.96.0.1", 53, "10.64.0.8", 5353, b"4"),
        Flow("udp", POD, PEER, 30099, PEER, 30099, b"5"),
        Flow("tcp", POD, "10.96.0.1", 53, "10.64.0.9", 5353, b"6"),
    ]
    assert orphaned([left, by_node, past, *others], removed, fresh, hosts) == [left, by_node, past]


def test_a_sweep_finds_what_goes_where_no_backend_is_and_leaves_what_others_translate() -> None:
    site = site_of("host-1", "172.30.0.11")
    backends = {("10.96.0.1", 53): {("10.64.0.8", 5353)}, ("", 30053): {("10.64.0.8", 5353)}}
    gone = [
        Flow("udp", POD, "10.96.0.1", 53, "10.64.0.9", 5353, b"1"),
        Flow("udp", POD, "10.96.0.1", 53, "10.96.0.1", 53, b"2"),
        Flow("udp", POD, "10.96.0.2", 53, "10.64.0.9", 53, b"3"),
        Flow("udp", PEER, "172.30.0.11", 30053, "172.30.0.11", 30053, b"4"),
        Flow("udp", PEER, "172.30.0.11", 30054, "10.64.0.9", 5353, b"5"),
    ]
    kept = [
        Flow("udp", POD, "10.96.0.1", 53, "10.64.0.8", 5353, b"6"),
        Flow("udp", PEER, "172.30.0.11", 4000, "172.17.0.2", 4000, b"7"),
        Flow("udp", POD, "9.9.9.9", 53, "9.9.9.9", 53, b"8"),
        Flow("tcp", POD, "10.96.0.2", 53, "10.64.0.9", 53, b"9"),
    ]
    assert astray([*gone, *kept], backends, frozenset({"172.30.0.11"}), site) == gone

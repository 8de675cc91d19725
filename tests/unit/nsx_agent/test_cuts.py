"""Connection tracking, which is slow to read, is read when a commit can have left flows behind, and only then."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from common.messages import PolicyItem
from nsx_agent.apply import Kernel
from nsx_agent.cuts import cut_flows, new_ports
from nsx_agent.intent import Intent
from nsx_agent.kernel.conntrack import Flow
from nsx_agent.model import Change, DropElement, PutElement
from nsx_agent.render.firewall import NamespaceFirewall

POD, PEER = "10.64.0.5", "10.64.9.9"
NEW_PORT = PutElement("ports", f'"s1234" . 02:73:0a:40:00:05 . {POD}', "")
OLD_FLOW = Flow("tcp", PEER, POD, 80, POD, 80, b"")
DENY = PolicyItem(namespace="n", name="deny", uid="u", selected="s", ingress=())


@dataclass
class Tracked:
    """A kernel with one flow to the pod."""

    asked: list[frozenset[str]] = field(default_factory=list)
    dropped: list[Flow] = field(default_factory=list)

    def flows(self, addresses: frozenset[str]) -> list[Flow]:
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

"""NetworkPolicy's fine print: what is absent, what is empty, what defaults."""

from typing import Any

import pytest

from controller.network.policy import EVERY_POD, SetMember, SetSpec, compile_policy, peer_set, policy_item
from controller.network.views import POLICIES, NamedPort, PeerView, PolicyView, view_of


def a_policy(**spec: Any) -> PolicyView:
    obj = {"metadata": {"namespace": "red", "name": "p", "uid": "u"}, "spec": {"podSelector": {}, **spec}}
    view = view_of(POLICIES, obj)
    assert isinstance(view, PolicyView)
    return view


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, (), None),
        ({"egress": []}, (), None),
        ({"egress": [{}]}, (), "one"),
        ({"policyTypes": ["Egress"]}, None, ()),
        ({"policyTypes": ["Ingress", "Egress"]}, (), ()),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, None, ()),
        ({"ingress": [{}]}, "one", None),
    ],
)
def test_which_directions_are_isolated(spec: dict[str, Any], ingress: object, egress: object) -> None:
    view = a_policy(**spec)
    for want, have in ((ingress, view.ingress), (egress, view.egress)):
        assert (have is None) == (want is None)
        assert have is None or len(have) == (1 if want == "one" else 0)


@pytest.mark.parametrize("rule", [{}, {"from": []}, {"from": None}])
def test_absent_and_empty_from_mean_everyone(rule: dict[str, Any]) -> None:
    item = policy_item(compile_policy(a_policy(ingress=[rule])), lambda spec: ())
    assert item.ingress is not None
    assert item.ingress[0].any_peer
    assert item.ingress[0].ports == ()


def test_an_empty_selector_is_everyone_in_reach_not_everyone() -> None:
    assert peer_set("red", PeerView(pods=SetSpec().pods)) == SetSpec(namespace="red")
    assert peer_set("red", PeerView(namespaces=SetSpec().pods)) == EVERY_POD


def test_equal_selectors_share_a_set_and_others_do_not() -> None:
    one = compile_policy(a_policy(ingress=[{"from": [{"podSelector": {"matchLabels": {"a": "b", "c": "d"}}}]}]))
    two = compile_policy(a_policy(egress=[{"to": [{"podSelector": {"matchLabels": {"c": "d", "a": "b"}}}]}]))
    assert one.published == two.published
    ids = {
        SetSpec(namespace="red").id,
        SetSpec(namespace="blue").id,
        EVERY_POD.id,
        SetSpec(cidr="10.0.0.0/8").id,
        SetSpec(cidr="10.0.0.0/8", excluded=("10.1.0.0/16",)).id,
    }
    assert len(ids) == 5


def test_a_named_port_is_resolved_where_the_traffic_goes() -> None:
    ports = [{"port": "web"}]
    ingress = compile_policy(a_policy(ingress=[{"from": [{"podSelector": {}}], "ports": ports}]))
    assert ingress.resolved == {ingress.selected}
    to_all = compile_policy(a_policy(policyTypes=["Egress"], egress=[{"ports": ports}]))
    assert to_all.resolved == {EVERY_POD}
    assert EVERY_POD not in to_all.published
    members = [
        SetMember("10.64.0.2", (NamedPort("web", "tcp", 8080), NamedPort("web", "udp", 53))),
        SetMember("10.64.0.1", (NamedPort("web", "tcp", 80),)),
    ]
    item = policy_item(to_all, lambda spec: members)
    assert item.egress is not None
    assert item.egress[0].ports[0].port == -1
    assert item.egress[0].ports[0].pairs == (("10.64.0.1", 80), ("10.64.0.2", 8080))


def test_ranges_protocols_and_blocks_survive() -> None:
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.2.0.0/16", "10.1.0.0/16"]}}
    ports = [{"protocol": "SCTP", "port": 80, "endPort": 90}, {"protocol": "UDP"}, {"port": 1}]
    compiled = compile_policy(a_policy(ingress=[{"from": [block], "ports": ports}]))
    item = policy_item(compiled, lambda spec: ())
    assert item.ingress is not None
    assert [(p.protocol, p.port, p.end_port) for p in item.ingress[0].ports] == [
        ("sctp", 80, 90),
        ("udp", 0, 0),
        ("tcp", 1, 0),
    ]
    assert SetSpec(cidr="10.0.0.0/8", excluded=("10.1.0.0/16", "10.2.0.0/16")) in compiled.published

"""The MQTT contract: what is encoded decodes to the same, and digests depend on content, not on order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import messages as m
from common.errors import Terminal

ITEMS: list[tuple[str, m.Message]] = [
    ("host/host-1", m.HostItem(name="host-1", underlay="192.0.2.1")),
    ("block/10.0.0.0-28", m.BlockItem(cidr="10.0.0.0/28", vni=4096, host="host-1", namespace="a")),
    (
        "service/a/b",
        m.ServiceItem(
            namespace="a",
            name="b",
            cluster_ip="10.96.0.9",
            ports=(m.ServicePort(protocol="tcp", port=80, backends=(m.Backend(address="10.0.0.1", port=8080),)),),
        ),
    ),
    (
        "policy/p",
        m.PolicyItem(
            namespace="a",
            name="p",
            uid="u",
            selected="s",
            ingress=(
                m.PolicyRule(sets=("x",), ports=(m.PolicyPort(protocol="tcp", port=-1, pairs=(("10.0.0.1", 80),)),)),
            ),
        ),
    ),
    ("set/x", m.AddressSetItem(id="x", members=("10.0.0.1",))),
    ("port/u", m.PortItem(pod_uid="u", namespace="a", name="b", address="10.0.0.1", mac="02:73:0a:00:00:01", vni=4096)),
    ("interest/namespaces", m.InterestItem(namespaces=("a",))),
]


@pytest.mark.parametrize(("key", "item"), ITEMS, ids=[k for k, _ in ITEMS])
def test_items_survive_the_wire(key: str, item: m.Message) -> None:
    assert m.decode_item(key, m.encode(item)) == item


def test_a_direction_that_isolates_nothing_differs_from_one_that_allows_nothing() -> None:
    open_policy = m.PolicyItem(namespace="a", name="p", uid="u", selected="s", ingress=None)
    closed = m.PolicyItem(namespace="a", name="p", uid="u", selected="s", ingress=())
    assert m.decode(m.encode(open_policy), m.PolicyItem).ingress is None
    assert m.decode(m.encode(closed), m.PolicyItem).ingress == ()


@given(st.binary(max_size=200))
def test_garbage_is_refused_with_one_error_class(payload: bytes) -> None:
    for key in ("service/a/b", "port/u", "policy/p"):
        with pytest.raises(Terminal):
            m.decode_item(key, payload)


def test_unknown_kind_and_oversize_are_refused() -> None:
    with pytest.raises(Terminal, match="unknown item kind"):
        m.decode_item("gateway/x", b"\x80")
    with pytest.raises(Terminal, match="over the limit"):
        m.decode(b"x" * (m.MESSAGE_BYTES_MAX + 1), m.Manifest)


@pytest.mark.parametrize(
    ("scope", "key"),
    [(m.Scope.cluster(), "service/a/b"), (m.Scope.namespace("a"), "set/x"), (m.Scope.host("host-1"), "port/u")],
)
def test_topics_parse_back(scope: m.Scope, key: str) -> None:
    assert m.parse_topic(scope.item_topic(key)) == m.Address(scope, key)
    assert m.parse_topic(scope.manifest_topic) == m.Address(scope, None)


@pytest.mark.parametrize(
    "topic", ["sphere/v1/report/host-1/cluster/watermark", "other", "sphere/v1/ns/a", "sphere/v1/ns/a/item"]
)
def test_other_topics_are_refused(topic: str) -> None:
    with pytest.raises(Terminal):
        m.parse_topic(topic)


@given(st.dictionaries(st.text(max_size=8), st.binary(max_size=8), max_size=8))
def test_set_digest_ignores_order_and_tells_sets_apart(items: dict[str, bytes]) -> None:
    hashes = [m.item_hash(k, v) for k, v in items.items()]
    assert m.set_digest(hashes) == m.set_digest(reversed(hashes))
    if items:
        assert m.set_digest(hashes) != m.set_digest(hashes[1:])

"""Slots and balancer entries."""

import pytest

from common.errors import Terminal
from common.messages import Backend, ServiceItem, ServicePort
from nsx_agent.model import ElementKey
from nsx_agent.render import services


def a_service(count, **more):
    backends = tuple(Backend(address=f"10.64.0.{n + 1}", port=80, host=f"host-{n % 3 + 1}") for n in range(count))
    port = ServicePort(protocol="TCP", port=80, node_port=30000, backends=backends)
    return ServiceItem(namespace="a", name="b", cluster_ip="10.96.0.1", ports=(port,), **more)


def test_assign_moves_as_little_as_possible():
    before = services.assign((), ["a", "b", "c", "d"])
    assert sorted(before) == ["a", "b", "c", "d"]
    gone = before[1]
    after = services.assign(before, [one for one in before if one != gone])
    assert len([1 for old, new in zip(before, after, strict=False) if old != new]) == 1
    assert sorted(after) == sorted({"a", "b", "c", "d"} - {gone})
    replaced = services.assign(before, [*(one for one in before if one != gone), "e"])
    assert [new for old, new in zip(before, replaced, strict=True) if old != new] == ["e"]


def test_assign_to_nothing_and_from_nothing():
    assert services.assign(("a",), []) == ()
    assert services.assign((), ["a"]) == ("a",)
    assert sorted(services.assign(("a", "b"), ["x", "y", "z"])) == ["x", "y", "z"]


def test_every_backend_has_exactly_one_slot():
    service = a_service(5)
    entries = services.render(service, services.slots_of(service, {}, frozenset(), "host-1"))
    slots = {key.key: value for key, value in entries.items() if isinstance(key, ElementKey) and key.set == "slots"}
    assert sorted(slots.values()) == [f"10.64.0.{n} . 80" for n in range(1, 6)]
    assert sorted(slots) == [f"10.96.0.1 . tcp . 80 . {n}" for n in range(5)]
    assert entries[ElementKey("services", "10.96.0.1 . tcp . 80")] == "goto lb_5"
    assert entries[ElementKey("nodeports", "tcp . 30000")] == "goto nodelb_5"


def test_dead_hosts_and_local_traffic_policy_filter_backends():
    assert len(services.slots_of(a_service(6), {}, frozenset({"host-2"}), "host-1")["tcp/80"]) == 4
    local = services.slots_of(a_service(6, internal_local=True), {}, frozenset(), "host-1")
    assert local["tcp/80"] == ("10.64.0.1 . 80", "10.64.0.4 . 80")
    assert len(local["node/tcp/30000"]) == 6


def test_without_backends_there_is_no_entry():
    service = a_service(0)
    entries = services.render(service, services.slots_of(service, {}, frozenset(), "host-1"))
    assert entries == {ElementKey("closedports", "tcp . 30000"): ""}, "but for what refuses pods at once"


def test_the_cluster_itself_reaches_all_backends_of_a_local_node_port():
    service = a_service(6, external_local=True)
    slots = services.slots_of(service, {}, frozenset(), "host-1")
    assert slots["node/tcp/30000"] == ("10.64.0.1 . 80", "10.64.0.4 . 80")
    assert len(slots["near/tcp/30000"]) == 6
    entries = services.render(service, slots)
    assert entries[ElementKey("nearports", "tcp . 30000")] == "goto nearlb_6"
    taken = [key.key for key in entries if isinstance(key, ElementKey) and key.set == "nodeslots"]
    assert sorted(taken) == sorted(
        [f"tcp . 30000 . {slot}" for slot in (0, 1)] + [f"tcp . 30000 . {services.NEAR + slot}" for slot in range(6)]
    )


@pytest.mark.parametrize("bad", ["10.96.0.1 }; flush ruleset", "010.0.0.1", "::1", "10.96.0", ""])
def test_impossible_addresses_are_refused(bad):
    port = ServicePort(protocol="tcp", port=80, backends=(Backend(address=bad or "x", port=80),))
    service = ServiceItem(namespace="a", name="b", cluster_ip="10.96.0.1", ports=(port,))
    with pytest.raises(Terminal, match="not an IPv4 address"):
        services.slots_of(service, {}, frozenset(), "h")


@pytest.mark.parametrize("seconds", [-1, 86401, 10**12])
def test_impossible_affinity_is_refused_before_the_kernel_does(seconds):
    service = a_service(1, affinity_s=seconds)
    with pytest.raises(Terminal, match="session affinity"):
        services.render(service, services.slots_of(service, {}, frozenset(), "host-1"))


def test_an_endpoint_on_its_way_out_serves_where_a_local_policy_leaves_nobody_else():
    backends = (
        Backend(address="10.64.0.1", port=80, host="host-1", fallback=True),
        Backend(address="10.64.0.2", port=80, host="host-2"),
        Backend(address="10.64.0.3", port=80, host="host-2", fallback=True),
    )
    port = ServicePort(protocol="tcp", port=80, node_port=30000, backends=backends)
    service = ServiceItem(
        namespace="a", name="b", cluster_ip="10.96.0.1", ports=(port,), internal_local=True, external_local=True
    )
    leaving, staying = "10.64.0.1 . 80", "10.64.0.2 . 80"
    for host, local in (("host-1", leaving), ("host-2", staying)):
        slots = services.slots_of(service, {}, frozenset(), host)
        assert slots == {"tcp/80": (local,), "node/tcp/30000": (local,), "near/tcp/30000": (staying,)}

"""Pod affinity, anti-affinity and topology spread."""

from typing import Any

import pytest

from controller.kinds.kind import Object
from controller.scheduler.choose import Placed, Unschedulable
from controller.scheduler.model import needs_of
from controller.scheduler.snapshot import Snapshot
from tests.unit.controller.scheduler.test_choose import node, place, pod

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def term(app: str, key: str = "host", **more: Any) -> Object:
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def near(*terms: Object) -> Object:
    return {"podAffinity": {REQUIRED: list(terms)}}


def far(*terms: Object) -> Object:
    return {"podAntiAffinity": {REQUIRED: list(terms)}}


def spread(skew: int = 1, key: str = "zone", **more: Any) -> Object:
    chosen = {"labelSelector": {"matchLabels": {"app": "web"}}}
    return {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", **chosen, **more}


def one(name: str, app: str, on: str = "", namespace: str = "d", **spec: Any) -> Object:
    made = pod(name, "100m", on=on, **spec)
    made["metadata"] |= {"labels": {"app": app}, "namespace": namespace}
    return made


def world(*bound: Object) -> Snapshot:
    """Two zones with two hosts each."""
    found = Snapshot()
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")):
        found.put_node(node(name, labels={"host": name, "zone": zone}))
    for each in bound:
        found.put_pod(each)
    return found


def zone(found: Placed | Unschedulable) -> str:
    assert isinstance(found, Placed), found
    return found.node[0]


def test_near_means_the_same_place_of_the_key() -> None:
    there = world(one("db", "db", "b1"))
    assert place(needs_of(one("web", "web", affinity=near(term("db")))), there) == Placed("b1")
    assert zone(place(needs_of(one("web", "web", affinity=near(term("db", "zone")))), there)) == "b"


def test_the_first_of_a_group_that_wants_to_be_together_may_begin() -> None:
    together = one("w1", "web", affinity=near(term("web", "zone")))
    assert isinstance(place(needs_of(together), world()), Placed)
    other = place(needs_of(one("x", "other", affinity=near(term("web", "zone")))), world())
    assert other == Unschedulable("0/4 nodes are available: 4 node(s) didn't match pod affinity rules.")


def test_far_counts_for_both_sides() -> None:
    apart = far(term("web", "zone"))
    found = place(needs_of(one("w2", "web", affinity=apart)), world(one("w1", "web", "a1")))
    assert zone(found) == "b"
    # The one that is there does not want company; the newcomer has no opinion.
    found = place(needs_of(one("w2", "web")), world(one("w1", "web", "a1", affinity=apart)))
    assert zone(found) == "b"
    full = world(one("w1", "web", "a1", affinity=apart), one("w3", "web", "b1", affinity=apart))
    assert place(needs_of(one("w2", "web")), full) == Unschedulable(
        "0/4 nodes are available: 4 node(s) didn't satisfy existing pods anti-affinity rules."
    )


@pytest.mark.parametrize(
    ("more", "matched"),
    [
        ({}, False),
        ({"namespaces": ["e"]}, True),
        ({"namespaceSelector": {}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "x"}}}, True),
        ({"namespaceSelector": {"matchLabels": {"team": "y"}}}, False),
    ],
)
def test_namespaces_of_terms(more: Object, matched: bool) -> None:
    there = world(one("db", "db", "b1", namespace="e"))
    found = place(needs_of(one("web", "web", affinity=near(term("db", **more)))), there, e={"team": "x"})
    assert isinstance(found, Placed) is matched


def test_spread_keeps_the_skew() -> None:
    there = world(one("w1", "web", "a1"), one("w2", "web", "a2"), one("w3", "web", "b1"))
    assert zone(place(needs_of(one("w4", "web", topologySpreadConstraints=[spread()])), there)) == "b"
    full = world(one("w1", "web", "a1"))
    for name in ("b1", "b2"):
        full.put_node(node(name, labels={"host": name, "zone": "b"}, unschedulable=True))
    found = place(needs_of(one("w2", "web", topologySpreadConstraints=[spread()])), full)
    assert found == Unschedulable(
        "0/4 nodes are available: 2 node(s) didn't match pod topology spread constraints, 2 node(s) were unschedulable."
    )


def test_spread_counts_only_places_where_the_pod_could_go() -> None:
    there = world(one("w1", "web", "a1"))
    wanted = one("w2", "web", nodeSelector={"zone": "a"}, topologySpreadConstraints=[spread()])
    assert zone(place(needs_of(wanted), there)) == "a"
    wanted = one(
        "w2", "web", nodeSelector={"zone": "a"}, topologySpreadConstraints=[spread(nodeAffinityPolicy="Ignore")]
    )
    assert isinstance(place(needs_of(wanted), there), Unschedulable)


def test_spread_wants_a_number_of_domains_and_knows_revisions() -> None:
    there = world(one("w1", "web", "a1"), one("w2", "web", "b1"))
    wanted = one("w3", "web", topologySpreadConstraints=[spread(minDomains=3)])
    assert isinstance(place(needs_of(wanted), there), Unschedulable)
    revised = one("w3", "web", topologySpreadConstraints=[spread(minDomains=3, matchLabelKeys=["rev"])])
    revised["metadata"]["labels"]["rev"] = "2"
    assert isinstance(place(needs_of(revised), there), Placed)


def test_a_node_without_the_label_is_no_place() -> None:
    bare = Snapshot()
    bare.put_node(node("n"))
    found = place(needs_of(one("w", "web", topologySpreadConstraints=[spread()])), bare)
    assert isinstance(found, Unschedulable)
    assert "(missing required label)" in found.message


def test_pods_on_their_way_out_do_not_count_for_spread() -> None:
    leaving = one("w1", "web", "a1")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    there = world(leaving, one("w2", "web", "b1"))
    assert zone(place(needs_of(one("w3", "web", topologySpreadConstraints=[spread()])), there)) == "a"


def test_preferences_decide_between_what_is_possible() -> None:
    liked = {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term("db")}]}}
    assert place(needs_of(one("web", "web", affinity=liked)), world(one("db", "db", "a2"))) == Placed("a2")
    shunned = {"podAntiAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": term("db", "zone")}]}}
    assert zone(place(needs_of(one("web", "web", affinity=shunned)), world(one("db", "db", "a2")))) == "b"
    soft = [spread(whenUnsatisfiable="ScheduleAnyway")]
    there = world(one("w1", "web", "b1"), one("w2", "web", "b2"))
    assert zone(place(needs_of(one("w3", "web", topologySpreadConstraints=soft)), there)) == "a"


def test_who_leaves_is_forgotten() -> None:
    apart = far(term("web", "zone"))
    there = world(one("w1", "web", "a1", affinity=apart), one("w3", "web", "b1", affinity=apart))
    there.drop_pod("w1")
    assert zone(place(needs_of(one("w2", "web")), there)) == "a"

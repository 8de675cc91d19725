"""Who is pushed away for whom."""

from typing import Any

from common.selectors import from_label_selector
from controller.kinds.kind import Object
from controller.scheduler.model import needs_of
from controller.scheduler.neighbours import Neighbours
from controller.scheduler.preempt import Budget, Helpless, Preemption, preempt
from controller.scheduler.snapshot import Snapshot
from tests.unit.controller.scheduler.test_choose import TAINT, node, pod


def one(name: str, cpu: str, priority: int, on: str = "", **spec: Any) -> Object:
    made = pod(name, cpu, on=on, priority=priority, **spec)
    made["metadata"] |= {"labels": {"name": name}, "creationTimestamp": "2026-01-01T00:00:00Z"}
    return made


def decide(wanted: Object, nodes: list[Object], bound: list[Object], *budgets: Budget) -> Preemption | Helpless:
    snapshot = Snapshot()
    for each in nodes:
        snapshot.put_node(each)
    for each in bound:
        snapshot.put_pod(each)
    needs, states = needs_of(wanted), snapshot.nodes()
    around = Neighbours(needs, states, snapshot.bound(), snapshot.repelling(), lambda name: {})
    return preempt(needs, states, {state.name: snapshot.bound_to(state.name) for state in states}, around, budgets)


def victims(found: Preemption | Helpless) -> tuple[str, list[str]]:
    assert isinstance(found, Preemption), found
    return found.node, sorted(each.name for each in found.victims)


def test_as_few_as_possible_and_the_least_important_go() -> None:
    bound = [one("low", "2", 1, "a"), one("lower", "1", 0, "a"), one("mid", "1", 5, "a")]
    assert victims(decide(one("p", "1", 10), [node("a")], bound)) == ("a", ["lower"])
    assert victims(decide(one("p", "3", 10), [node("a")], bound)) == ("a", ["low", "lower"])


def test_the_node_where_it_hurts_least_is_taken() -> None:
    nodes = [node("a"), node("b"), node("c")]
    bound = [one("x", "4", 5, "a"), one("y", "4", 1, "b"), one("z", "4", 3, "c")]
    assert victims(decide(one("p", "2", 10), nodes, bound)) == ("b", ["y"])


def test_equals_are_never_pushed_away() -> None:
    found = decide(one("p", "2", 10), [node("a")], [one("x", "4", 10, "a")])
    assert found == Helpless(("No preemption victims found for incoming pod",))


def test_a_node_that_is_out_of_the_question_is_not_emptied() -> None:
    found = decide(one("p", "2", 10), [node("a", taints=[TAINT])], [one("x", "4", 0, "a")])
    assert found == Helpless(("Preemption is not helpful for scheduling",))
    assert decide(one("p", "9", 10), [node("a")], [one("x", "4", 0, "a")]) == Helpless(
        ("Preemption is not helpful for scheduling",)
    )


def test_budgets_are_honoured_where_that_is_possible() -> None:
    guarded = Budget("d", from_label_selector({"matchLabels": {"name": "guarded"}}), 0)
    bound = [one("guarded", "4", 0, "a"), one("free", "4", 3, "b")]
    assert victims(decide(one("p", "2", 10), [node("a"), node("b")], bound, guarded)) == ("b", ["free"])
    # Where there is no other way, priority counts more than a budget.
    assert victims(decide(one("p", "2", 10), [node("a")], bound[:1], guarded)) == ("a", ["guarded"])


def test_host_ports_are_made_free_too() -> None:
    ports = [{"containerPort": 80, "hostPort": 80}]
    bound = [one("web", "1", 0, "a", ports=ports), one("other", "1", 0, "a")]
    assert victims(decide(one("p", "1", 10, ports=ports), [node("a")], bound)) == ("a", ["web"])

"""Preemption: which pods of lower priority must go so that a pod fits, and on which node that hurts least. Pure.

Follows kube-scheduler's ``DefaultPreemption``: on every node that could be helped, all pods of lower priority are
thought away, then as many as possible are let stay, those whose disruption budget would be overdrawn first, then by
priority. Wishes about other pods are not helped: for whom only those stand against a node, nobody is pushed away there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from common.selectors import LabelSelector
from controller.scheduler import filters
from controller.scheduler.model import BoundPod, NodeState, PodNeeds
from controller.scheduler.neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class Budget:
    """A disruption budget: pods of ``namespace`` that ``selector`` matches may lose ``allowed`` more."""

    namespace: str
    selector: LabelSelector
    allowed: int


@dataclass(frozen=True, slots=True)
class Preemption:
    """Delete ``victims`` and keep ``node`` for the pod."""

    node: str
    victims: tuple[BoundPod, ...]


@dataclass(frozen=True, slots=True)
class Helpless:
    """``reasons``: for each node, why pushing pods away does not help."""

    reasons: tuple[str, ...]


def preempt(
    pod: PodNeeds,
    nodes: Sequence[NodeState],
    bound: Mapping[str, Collection[BoundPod]],
    neighbours: Neighbours,
    budgets: Sequence[Budget],
    out_of_reach: Collection[str] = (),
) -> Preemption | Helpless:
    """``bound``: the pods of each node; ``out_of_reach``: nodes where the pod's volumes are not. Deterministic."""
    best: tuple[tuple[object, ...], Preemption] | None = None
    reasons: list[str] = []
    for node in nodes:
        if node.name in out_of_reach or neighbours.against(node) or not _can_be_helped(pod, node):
            reasons.append("Preemption is not helpful for scheduling")
            continue
        found = _victims(pod, node, bound.get(node.name, ()), budgets)
        if not found:
            reasons.append("No preemption victims found for incoming pod")
            continue
        victims, violations = found
        priorities = [each.priority for each in victims]
        oldest_of_top = min(each.created for each in victims if each.priority == max(priorities))
        cost = (violations, max(priorities), sum(priorities), len(victims), _reversed(oldest_of_top), node.name)
        if best is None or cost < best[0]:
            best = cost, Preemption(node.name, tuple(victims))
    return Helpless(tuple(reasons)) if best is None else best[1]


def _can_be_helped(pod: PodNeeds, node: NodeState) -> bool:
    """Nothing but what other pods take stands against the node."""
    empty = replace(node, requested={}, host_ports=())
    return not filters.against(pod, empty)


def _victims(
    pod: PodNeeds, node: NodeState, bound: Collection[BoundPod], budgets: Sequence[Budget]
) -> tuple[list[BoundPod], int] | None:
    """The fewest pods that must go, and how many of them overdraw a budget; None when it would not help."""
    lower = [each for each in bound if each.priority < pod.priority]
    state = _without(node, lower)
    if not lower or filters.against(pod, state):
        return None
    left = {index: budget.allowed for index, budget in enumerate(budgets)}
    overdrawing: list[BoundPod] = []
    others: list[BoundPod] = []
    for each in sorted(lower, key=_importance):
        covering = [index for index, budget in enumerate(budgets) if _covers(budget, each)]
        for index in covering:
            left[index] -= 1
        (overdrawing if any(left[index] < 0 for index in covering) else others).append(each)
    victims: list[BoundPod] = []
    violations = 0
    for each in [*overdrawing, *others]:
        with_it = _with(state, each)
        if not filters.against(pod, with_it):
            state = with_it
        else:
            victims.append(each)
            violations += each in overdrawing
    return victims, violations


def _importance(each: BoundPod) -> tuple[object, ...]:
    """The most important first: it stays if it can."""
    return -each.priority, each.created, each.uid


def _covers(budget: Budget, each: BoundPod) -> bool:
    return budget.namespace == each.namespace and budget.selector.matches(each.labels)


def _without(node: NodeState, gone: Collection[BoundPod]) -> NodeState:
    requested = dict(node.requested)
    ports = list(node.host_ports)
    for each in gone:
        for name, value in each.requests.items():
            requested[name] = requested.get(name, 0) - value
        for port in each.host_ports:
            ports.remove(port)
    return replace(node, requested=requested, host_ports=tuple(ports))


def _with(node: NodeState, each: BoundPod) -> NodeState:
    requested = dict(node.requested)
    for name, value in each.requests.items():
        requested[name] = requested.get(name, 0) + value
    return replace(node, requested=requested, host_ports=(*node.host_ports, *each.host_ports))


def _reversed(text: str) -> tuple[int, ...]:
    """Sorts the latest time first."""
    return tuple(-ord(char) for char in text)

"""How good fitting nodes are for a pod: each score 0..100, weighted. Pure; one pass over the nodes per score."""

from collections.abc import Callable, Sequence
from typing import Final

from controller.scheduler.filters import tolerated
from controller.scheduler.model import NodeState, PodNeeds
from controller.scheduler.neighbours import Neighbours

Score = Callable[[PodNeeds, Sequence[NodeState], Neighbours], list[float]]
"""(pod, all fitting nodes, other pods) -> one number per node."""
_CPU_DEFAULT_MILLI: Final = 100
_MEMORY_DEFAULT_BYTES: Final = 200 * 1024 * 1024
"""What a container without requests counts as, for scores only (kube-scheduler's non-zero requests)."""


def _share(pod: PodNeeds, node: NodeState, name: str, default: int) -> float:
    """Used part of a resource with the pod on the node, 0..1."""
    capacity = node.allocatable.get(name, 0)
    used = node.requested.get(name, 0) + (pod.requests.get(name) or default)
    return min(1.0, used / capacity) if capacity else 1.0


def _shares(pod: PodNeeds, node: NodeState) -> tuple[float, float]:
    return _share(pod, node, "cpu", _CPU_DEFAULT_MILLI), _share(pod, node, "memory", _MEMORY_DEFAULT_BYTES)


def _less_is_better(amounts: Sequence[float]) -> list[float]:
    most = max(amounts)
    return [100 * (1 - amount / most) if most else 100.0 for amount in amounts]


def _more_is_better(amounts: Sequence[float]) -> list[float]:
    least, most = min(amounts), max(amounts)
    return [100 * (amount - least) / (most - least) if most > least else 0.0 for amount in amounts]


def least_allocated(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    return [100 * (1 - sum(_shares(pod, node)) / 2) for node in fitting]


def balanced(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    return [100 * (1 - abs(cpu - memory)) for cpu, memory in (_shares(pod, node) for node in fitting)]


def spread(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    """Siblings (same controller) apart."""
    if not pod.owner:
        return [0.0] * len(fitting)
    return _less_is_better([node.owners.get(pod.owner, 0) for node in fitting])


def fewest_pods(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    """Pods without requests must not pile up."""
    return _less_is_better([node.requested.get("pods", 0) for node in fitting])


def preferred_affinity(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    if not pod.preferred:
        return [0.0] * len(fitting)
    return _more_is_better([sum(w for w, term in pod.preferred if term.matches(node)) for node in fitting])


def soft_taints(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    def count(node: NodeState) -> int:
        return sum(t.effect == "PreferNoSchedule" and not tolerated(pod, t) for t in node.taints)

    return _less_is_better([count(node) for node in fitting])


def soft_spread(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    """Topology spread constraints that may be violated."""
    amounts = [neighbours.crowding(node) for node in fitting]
    least = min(amounts)
    return _less_is_better([amount - least for amount in amounts])


def company(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    """Preferred pod affinity and anti-affinity, the pod's own and that of pods there."""
    return _more_is_better([neighbours.liking(node) for node in fitting])


SCORES: Final[tuple[tuple[float, Score], ...]] = (
    (1, least_allocated),
    (1, balanced),
    (2, spread),
    (0.5, fewest_pods),
    (2, preferred_affinity),
    (3, soft_taints),
    (2, soft_spread),
    (2, company),
)


def totals(pod: PodNeeds, fitting: Sequence[NodeState], neighbours: Neighbours) -> list[float]:
    """Weighted sums, one per node. ``fitting`` is not empty."""
    parts = [(weight, score(pod, fitting, neighbours)) for weight, score in SCORES]
    return [sum(weight * found[index] for weight, found in parts) for index in range(len(fitting))]

"""How good a fitting node is for a pod: each score 0..100, weighted. Pure."""

from collections.abc import Callable, Sequence
from typing import Final

from controller.scheduler.filters import tolerated
from controller.scheduler.model import NodeState, PodNeeds

Score = Callable[[PodNeeds, NodeState, Sequence[NodeState]], float]
"""(pod, node, all fitting nodes)."""
_CPU_DEFAULT_MILLI: Final = 100
_MEMORY_DEFAULT_BYTES: Final = 200 * 1024 * 1024
"""What a container without requests counts as, for scores only (kube-scheduler's non-zero requests)."""


def _shares(pod: PodNeeds, node: NodeState) -> list[float]:
    """Used part of cpu and memory with the pod on it, 0..1."""
    found = []
    for name, default in (("cpu", _CPU_DEFAULT_MILLI), ("memory", _MEMORY_DEFAULT_BYTES)):
        capacity = node.allocatable.get(name, 0)
        used = node.requested.get(name, 0) + (pod.requests.get(name) or default)
        found.append(min(1.0, used / capacity) if capacity else 1.0)
    return found


def least_allocated(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    shares = _shares(pod, node)
    return 100 * (1 - sum(shares) / len(shares))


def balanced(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    cpu, memory = _shares(pod, node)
    return 100 * (1 - abs(cpu - memory))


def spread(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    """Siblings (same controller) apart."""
    if not pod.owner:
        return 0.0
    most = max(each.owners.get(pod.owner, 0) for each in fitting)
    return 100 * (1 - node.owners.get(pod.owner, 0) / most) if most else 100.0


def fewest_pods(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    """Pods without requests must not pile up."""
    most = max(each.requested.get("pods", 0) for each in fitting)
    return 100 * (1 - node.requested.get("pods", 0) / most) if most else 100.0


def preferred_affinity(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    def weight(each: NodeState) -> int:
        return sum(amount for amount, term in pod.preferred if term.matches(each))

    best = max(weight(each) for each in fitting) if pod.preferred else 0
    return 100 * weight(node) / best if best else 0.0


def soft_taints(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    def count(each: NodeState) -> int:
        return sum(t.effect == "PreferNoSchedule" and not tolerated(pod, t) for t in each.taints)

    worst = max(count(each) for each in fitting)
    return 100 * (1 - count(node) / worst) if worst else 100.0


SCORES: Final[tuple[tuple[float, Score], ...]] = (
    (1, least_allocated),
    (1, balanced),
    (2, spread),
    (0.5, fewest_pods),
    (2, preferred_affinity),
    (3, soft_taints),
)


def total(pod: PodNeeds, node: NodeState, fitting: Sequence[NodeState]) -> float:
    """Weighted sum."""
    return sum(weight * score(pod, node, fitting) for weight, score in SCORES)

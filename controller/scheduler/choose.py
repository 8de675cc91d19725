"""One decision: the node for a pod, or why there is none. Pure and deterministic."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from controller.scheduler import filters, scores
from controller.scheduler.model import NodeState, PodNeeds


@dataclass(frozen=True, slots=True)
class Placed:
    """Bind the pod to ``node``."""

    node: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """``message`` is for the condition and the event."""

    message: str


def choose(
    pod: PodNeeds, nodes: Sequence[NodeState], seed: int, without_address: Collection[str] = ()
) -> Placed | Unschedulable:
    """The fitting node with the highest score; equal scores are drawn by a hash of ``seed``, pod and node.

    ``without_address`` names nodes on which the pod's segment has no address left.
    """
    reasons: list[tuple[str, ...]] = []
    fitting: list[NodeState] = []
    for node in nodes:
        against = filters.against(pod, node)
        if not against and node.name in without_address:
            against = ("node(s) had no free address in the namespace's segment",)
        if against:
            reasons.append(against)
        else:
            fitting.append(node)
    if not fitting:
        return Unschedulable(filters.explain(reasons, len(nodes)))
    best = max(fitting, key=lambda node: (scores.total(pod, node, fitting), _draw(seed, pod, node)))
    return Placed(best.name)


def _draw(seed: int, pod: PodNeeds, node: NodeState) -> bytes:
    return hashlib.blake2b(f"{seed}/{pod.uid}/{node.name}".encode(), digest_size=8).digest()

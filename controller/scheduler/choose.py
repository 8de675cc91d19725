"""One decision: the node for a pod, or why there is none. Pure and deterministic."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from controller.scheduler import filters, scores
from controller.scheduler.model import NodeState, PodNeeds
from controller.scheduler.neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class Placed:
    """Bind the pod to ``node``."""

    node: str


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """``message`` is for the condition and the event."""

    message: str


def choose(
    pod: PodNeeds,
    nodes: Sequence[NodeState],
    seed: int,
    neighbours: Neighbours,
    without_address: Collection[str] = (),
    volumes: Mapping[str, str] | None = None,
) -> Placed | Unschedulable:
    """The fitting node with the highest score; equal scores are drawn by a hash of ``seed``, pod and node.

    ``without_address`` names nodes on which the pod's segment has no address left, ``volumes`` those that its claims
    on volumes speak against, and why.
    """
    reasons: list[tuple[str, ...]] = []
    fitting: list[NodeState] = []
    for node in nodes:
        against = filters.against(pod, node)
        if not against and volumes and node.name in volumes:
            against = (volumes[node.name],)
        against = against or neighbours.against(node)
        if not against and node.name in without_address:
            against = ("node(s) had no free address in the namespace's segment",)
        if against:
            reasons.append(against)
        else:
            fitting.append(node)
    if not fitting:
        return Unschedulable(filters.explain(reasons, len(nodes)))
    scored = zip(scores.totals(pod, fitting, neighbours), fitting, strict=True)
    _, best = max(scored, key=lambda each: (each[0], _draw(seed, pod, each[1])))
    return Placed(best.name)


def _draw(seed: int, pod: PodNeeds, node: NodeState) -> bytes:
    return hashlib.blake2b(f"{seed}/{pod.uid}/{node.name}".encode(), digest_size=8).digest()

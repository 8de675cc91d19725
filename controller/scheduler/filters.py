"""Which nodes can take a pod, and why the others cannot, in kube-scheduler's words. Pure."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from controller.scheduler.model import UNSCHEDULABLE, NodeState, PodNeeds, Taint

Filter = Callable[[PodNeeds, NodeState], tuple[str, ...]]
"""Reasons against; empty means fit."""


def node_unschedulable(pod: PodNeeds, node: NodeState) -> tuple[str, ...]:
    if node.unschedulable and not tolerated(pod, Taint(UNSCHEDULABLE, "", "NoSchedule")):
        return ("node(s) were unschedulable",)
    return ()


def taints(pod: PodNeeds, node: NodeState) -> tuple[str, ...]:
    for taint in node.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not tolerated(pod, taint):
            return (f"node(s) had untolerated taint {taint}",)
    return ()


def node_affinity(pod: PodNeeds, node: NodeState) -> tuple[str, ...]:
    selected = all(node.labels.get(name) == value for name, value in pod.selector.items())
    if selected and (pod.required is None or any(term.matches(node) for term in pod.required)):
        return ()
    return ("node(s) didn't match Pod's node affinity/selector",)


def host_ports(pod: PodNeeds, node: NodeState) -> tuple[str, ...]:
    if any(wanted.clashes(used) for wanted in pod.host_ports for used in node.host_ports):
        return ("node(s) didn't have free ports for the requested pod ports",)
    return ()


def resources(pod: PodNeeds, node: NodeState) -> tuple[str, ...]:
    lacking = []
    for name, wanted in pod.requests.items():
        if wanted and node.requested.get(name, 0) + wanted > node.allocatable.get(name, 0):
            lacking.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return tuple(lacking)


FILTERS: Final[tuple[Filter, ...]] = (node_unschedulable, taints, node_affinity, host_ports, resources)
"""In kube-scheduler's order: the first that objects gives the reasons."""


def tolerated(pod: PodNeeds, taint: Taint) -> bool:
    return any(each.tolerates(taint) for each in pod.tolerations)


def against(pod: PodNeeds, node: NodeState) -> tuple[str, ...]:
    """Reasons of the first filter that objects; empty when the pod fits."""
    for each in FILTERS:
        reasons = each(pod, node)
        if reasons:
            return reasons
    return ()


def explain(reasons: Iterable[tuple[str, ...]], nodes: int) -> str:
    """``0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {a: b}.``"""
    if not nodes:
        return "no nodes available to schedule pods"
    counted = Counter(reason for each in reasons for reason in each)
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in counted.items()))
    return f"0/{nodes} nodes are available: {listed}."

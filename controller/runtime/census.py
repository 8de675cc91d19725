"""How many nodes and pods are in which state, counted when Prometheus asks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from prometheus_client.core import GaugeMetricFamily, Metric

from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers.conditions import find
from controller.runtime.resources import NODES, PODS
from controller.store.entry import Entry

_READY = ("true", "false", "unknown")
_PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")


class Listing(Protocol):
    """What is needed of the view."""

    def objects(self, resource: ResourceKey) -> Sequence[Object]: ...

    def entries(self, resource: ResourceKey) -> Sequence[Entry]: ...


class Census:
    """A collector. Every state is reported, also when nothing is in it, so that alerts need not guess."""

    def __init__(self, view: Listing) -> None:
        self._view = view

    def collect(self) -> Iterable[Metric]:
        """The two families."""
        nodes = GaugeMetricFamily("sphere_controller_nodes", "Nodes, by their condition Ready.", labels=["ready"])
        ready = Counter(_is_ready(node) for node in self._view.objects(NODES))
        for state in _READY:
            nodes.add_metric([state], ready[state])
        pods = GaugeMetricFamily("sphere_controller_pods", "Pods, by phase.", labels=["phase"])
        phases = Counter(entry.fields.get("status.phase") or "Pending" for entry in self._view.entries(PODS))
        for phase in _PHASES:
            pods.add_metric([phase], phases[phase])
        return [nodes, pods]


def _is_ready(node: Object) -> str:
    condition = find(node.get("status", {}).get("conditions"), "Ready")
    state = str(condition["status"]).lower() if condition else "unknown"
    return state if state in _READY else "unknown"

"""What pods want of each other: affinity, anti-affinity, topology spread. Pure.

Everything that depends on all bound pods is counted once per decision; a node is then judged by looking up its labels.
A pod that nobody wishes anything of, and that wishes nothing, costs nothing here.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from controller.scheduler.filters import node_affinity, taints
from controller.scheduler.model import BoundPod, NodeState, PodNeeds, PodTerm, SpreadConstraint

NamespaceLabels = Callable[[str], Mapping[str, str] | None]
"""Labels of a namespace; None when it is not there."""
_Place = tuple[str, str]
"""A topology key and its value: a host, a zone."""


@dataclass(frozen=True, slots=True)
class _Spread:
    """A constraint with what is counted for it: pods by value of the topology key, over the nodes that matter."""

    constraint: SpreadConstraint
    counts: Mapping[str, int]
    least: int
    itself: int

    def skew(self, node: NodeState) -> int | None:
        """With the pod on ``node``; None where the node lacks the label."""
        value = node.labels.get(self.constraint.topology_key)
        return None if value is None else self.counts.get(value, 0) + self.itself - self.least


class Neighbours:
    """The other pods as one pod to be placed sees them."""

    def __init__(
        self,
        pod: PodNeeds,
        nodes: Sequence[NodeState],
        bound: Collection[BoundPod],
        repelling: Collection[BoundPod],
        namespace_labels: NamespaceLabels,
    ) -> None:
        """``repelling``: those of ``bound`` that have wishes about others."""
        self._pod = pod
        self._labels_of = namespace_labels
        self._by_name = {node.name: node for node in nodes} if pod.closeness or repelling else {}
        wishes = pod.closeness
        self._near = [(term, self._places(term, bound)) for term in wishes.near]
        self._far = [(term, self._places(term, bound)) for term in wishes.far]
        self._kept_away = self._places_kept_away(repelling)
        self._liking = self._likings(bound, repelling)
        self._spread = [self._count(constraint, nodes, bound) for constraint in wishes.spread]
        self._first = not any(places for _, places in self._near) and all(
            self._means(term, pod.namespace, pod.labels, pod.namespace) for term in wishes.near
        )

    def against(self, node: NodeState) -> tuple[str, ...]:
        """Why ``node`` is out of the question, in kube-scheduler's words; empty when it is not."""
        for spread in self._spread:
            if spread.constraint.hard:
                skew = spread.skew(node)
                if skew is None:
                    return ("node(s) didn't match pod topology spread constraints (missing required label)",)
                if skew > spread.constraint.max_skew:
                    return ("node(s) didn't match pod topology spread constraints",)
        for term, places in self._near:
            value = node.labels.get(term.topology_key)
            if value is None or (not places[value] and not self._first):
                return ("node(s) didn't match pod affinity rules",)
        for term, places in self._far:
            if places[node.labels.get(term.topology_key, "")]:
                return ("node(s) didn't match pod anti-affinity rules",)
        if any(node.labels.get(key) == value for key, value in self._kept_away):
            return ("node(s) didn't satisfy existing pods anti-affinity rules",)
        return ()

    def liking(self, node: NodeState) -> float:
        """Sum of the weights that preferences of this and of other pods give to ``node``."""
        return sum(weight for (key, value), weight in self._liking.items() if node.labels.get(key) == value)

    def crowding(self, node: NodeState) -> float:
        """How many pods a soft spread constraint counts where ``node`` is; less is better."""
        soft = [spread for spread in self._spread if not spread.constraint.hard]
        skews = [(spread.skew(node), spread.constraint.max_skew) for spread in soft]
        return sum(1e6 if skew is None else skew / most for skew, most in skews)

    def _means(self, term: PodTerm, namespace: str, labels: Mapping[str, str], own: str) -> bool:
        """Whether ``term``, of a pod in namespace ``own``, means a pod with these labels."""
        if not term.selector.matches(labels):
            return False
        if namespace in term.namespaces:
            return True
        if term.namespace_selector is None:
            return not term.namespaces and namespace == own
        found = self._labels_of(namespace)
        return found is not None and term.namespace_selector.matches(found)

    def _value(self, bound: BoundPod, key: str) -> str | None:
        node = self._by_name.get(bound.node)
        return None if node is None else node.labels.get(key)

    def _places(self, term: PodTerm, bound: Iterable[BoundPod]) -> Counter[str]:
        """Values of the topology key where pods are that ``term`` means."""
        found: Counter[str] = Counter()
        for each in bound:
            if self._means(term, each.namespace, each.labels, self._pod.namespace):
                value = self._value(each, term.topology_key)
                if value is not None:
                    found[value] += 1
        return found

    def _places_kept_away(self, repelling: Iterable[BoundPod]) -> set[_Place]:
        found: set[_Place] = set()
        for each in repelling:
            for term in each.closeness.far:
                if self._means(term, self._pod.namespace, self._pod.labels, each.namespace):
                    value = self._value(each, term.topology_key)
                    if value is not None:
                        found.add((term.topology_key, value))
        return found

    def _likings(self, bound: Iterable[BoundPod], repelling: Iterable[BoundPod]) -> dict[_Place, float]:
        found: Counter[_Place] = Counter()
        for weight, term in self._pod.closeness.rather_near:
            for place, count in self._places(term, bound).items():
                found[term.topology_key, place] += weight * count
        for each in repelling:
            for weight, term in each.closeness.rather_near:
                if self._means(term, self._pod.namespace, self._pod.labels, each.namespace):
                    value = self._value(each, term.topology_key)
                    if value is not None:
                        found[term.topology_key, value] += weight
        return dict(found)

    def _count(self, constraint: SpreadConstraint, nodes: Sequence[NodeState], bound: Iterable[BoundPod]) -> _Spread:
        key = constraint.topology_key
        eligible = {
            node.name: node.labels[key] for node in nodes if key in node.labels and self._counts(constraint, node)
        }
        counts: Counter[str] = Counter(dict.fromkeys(eligible.values(), 0))
        for each in bound:
            place = eligible.get(each.node)
            same = each.namespace == self._pod.namespace and not each.deleting
            if place is not None and same and constraint.selector.matches(each.labels):
                counts[place] += 1
        least = min(counts.values(), default=0) if len(counts) >= constraint.min_domains else 0
        return _Spread(constraint, counts, least, int(constraint.selector.matches(self._pod.labels)))

    def _counts(self, constraint: SpreadConstraint, node: NodeState) -> bool:
        if constraint.honor_affinity and node_affinity(self._pod, node):
            return False
        return not (constraint.honor_taints and taints(self._pod, node))

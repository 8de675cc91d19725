"""The arithmetic of a Deployment's rollout: how many replicas each of its ReplicaSets should ask for. Pure.

Follows ``pkg/controller/deployment`` of Kubernetes, with one difference: a ReplicaSet's available pods count only as
far as its spec still wants them, so that a status that lags behind a scale-down never lets a second one through.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controller.kinds.kind import Object
from controller.reconcilers import pods

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a rollout must keep to: at most ``maximum`` pods asked for, at least ``minimum`` available."""

    desired: int
    surge: int
    unavailable: int

    @property
    def maximum(self) -> int:
        return self.desired + self.surge if self.desired else 0

    @property
    def minimum(self) -> int:
        return self.desired - min(self.unavailable, self.desired)


def int_or_percent(value: object, total: int, *, round_up: bool) -> int:
    """``3`` or ``"25%"`` of ``total``."""
    if isinstance(value, str):
        share = int(value.removesuffix("%")) * total
        return math.ceil(share / 100) if round_up else share // 100
    return int(value) if isinstance(value, int) else 0


def bounds_of(deployment: Object) -> Bounds:
    """Surge rounds up, unavailable rounds down; both zero would never move, so then one may be unavailable."""
    spec = deployment["spec"]
    desired = spec.get("replicas", 1)
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        return Bounds(desired, 0, 0)
    rolling = strategy.get("rollingUpdate") or {}
    surge = int_or_percent(rolling.get("maxSurge", "25%"), desired, round_up=True)
    unavailable = int_or_percent(rolling.get("maxUnavailable", "25%"), desired, round_up=False)
    return Bounds(desired, surge, unavailable if surge or unavailable else 1)


class Sizes:
    """Wanted replicas by ReplicaSet name, starting from what their specs say."""

    def __init__(self, sets: Sequence[Object]) -> None:
        self._sets = {rs["metadata"]["name"]: rs for rs in sets}
        self._wanted = {name: spec_replicas(rs) for name, rs in self._sets.items()}

    def __getitem__(self, rs: Object) -> int:
        return self._wanted[rs["metadata"]["name"]]

    def __setitem__(self, rs: Object, count: int) -> None:
        self._wanted[rs["metadata"]["name"]] = max(0, count)

    def total(self) -> int:
        return sum(self._wanted.values())

    @property
    def changed(self) -> bool:
        return any(self._wanted[name] != spec_replicas(rs) for name, rs in self._sets.items())


def spec_replicas(rs: Object) -> int:
    return int(rs["spec"].get("replicas", 1))


def available(rs: Object) -> int:
    """Available pods that ``rs`` still asks for."""
    return min(status_count(rs, "availableReplicas"), spec_replicas(rs))


def status_count(rs: Object, field: str) -> int:
    return int((rs.get("status") or {}).get(field) or 0)


def size_of_new(bounds: Bounds, current: int, total: int, *, recreate: bool) -> int:
    """Replicas of the new ReplicaSet, which now asks for ``current`` of all ``total``."""
    if recreate:
        return bounds.desired
    if current >= bounds.desired:
        return bounds.desired
    return current + max(0, min(bounds.maximum - total, bounds.desired - current))


def roll(bounds: Bounds, new: Object, old: Sequence[Object], sizes: Sizes) -> None:
    """One step of a rolling update: grow the new one; only if it cannot grow, shrink the old ones."""
    sizes[new] = size_of_new(bounds, sizes[new], sizes.total(), recreate=False)
    if sizes.changed:
        return
    by_age = sorted(old, key=lambda rs: (pods.created_at(rs), rs["metadata"]["name"]))
    removable = sizes.total() - bounds.minimum - (sizes[new] - available(new))
    if removable <= 0:
        return
    for rs in by_age:
        unhealthy = min(removable, sizes[rs] - available(rs))
        sizes[rs] = sizes[rs] - unhealthy
        removable -= unhealthy
    spare = min(removable, available(new) + sum(available(rs) for rs in old) - bounds.minimum)
    for rs in by_age:
        step = max(0, min(sizes[rs], spare))
        sizes[rs] = sizes[rs] - step
        spare -= step


def rescale(bounds: Bounds, new: Object | None, old: Sequence[Object], sizes: Sizes, *, rolling: bool) -> None:
    """The deployment's own size changed (or it is paused): keep the mix, change the amount, in proportion."""
    everyone = [*old, *([new] if new is not None else [])]
    active = [rs for rs in everyone if sizes[rs] > 0]
    only = active[0] if len(active) == 1 else None
    if not active and everyone:
        only = new if new is not None else max(old, key=lambda rs: (pods.created_at(rs), rs["metadata"]["name"]))
    if only is not None:
        sizes[only] = bounds.desired
        return
    if (
        new is not None
        and sizes[new] == bounds.desired == available(new)
        and _annotation(new, DESIRED)
        in (
            0,
            bounds.desired,
        )
    ):
        for rs in old:
            sizes[rs] = 0
        return
    if rolling:
        _rescale_in_proportion(bounds, active, sizes)


def _rescale_in_proportion(bounds: Bounds, active: Sequence[Object], sizes: Sizes) -> None:
    to_add = bounds.maximum - sum(sizes[rs] for rs in active)
    if not to_add or not active:
        return
    newest_first = -1 if to_add > 0 else 1
    order = sorted(active, key=lambda rs: (-sizes[rs], newest_first * pods.created_at(rs), rs["metadata"]["name"]))
    added = 0
    for rs in order:
        share = _fraction(bounds, rs)
        rest = to_add - added
        share = min(share, rest) if to_add > 0 else max(share, rest)
        share = max(share, -sizes[rs])
        sizes[rs] = sizes[rs] + share
        added += share
    for rs in order:
        before = sizes[rs]
        sizes[rs] = before + (to_add - added)
        added += sizes[rs] - before


def _fraction(bounds: Bounds, rs: Object) -> int:
    """How much ``rs`` should grow (or shrink) to keep its share of the deployment's maximum."""
    have = spec_replicas(rs)
    if bounds.desired == 0:
        return -have
    before = _annotation(rs, MAXIMUM) or bounds.maximum
    return math.floor(have * bounds.maximum / before + 0.5) - have


def needs_rescale(bounds: Bounds, sets: Sequence[Object]) -> bool:
    """The desired size written on an active ReplicaSet is not the deployment's."""
    return any(spec_replicas(rs) > 0 and _annotation(rs, DESIRED) not in (None, bounds.desired) for rs in sets)


def _annotation(rs: Object, name: str) -> int | None:
    text = (rs["metadata"].get("annotations") or {}).get(name, "")
    return int(text) if text.isdigit() else None

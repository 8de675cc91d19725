"""Steps of a rolling update, as tables."""

import pytest

from controller.kinds.kind import Object
from controller.reconcilers.rollout import DESIRED, MAXIMUM, Bounds, Sizes, needs_rescale, rescale, roll


def replica_set(name: str, wanted: int, available: int, *, desired: int | None = None, maximum: int = 0) -> Object:
    annotations = {} if desired is None else {DESIRED: str(desired), MAXIMUM: str(maximum)}
    return {
        "metadata": {"name": name, "annotations": annotations, "creationTimestamp": f"2026-01-0{name[-1]}T00:00:00Z"},
        "spec": {"replicas": wanted},
        "status": {"replicas": wanted, "availableReplicas": available},
    }


@pytest.mark.parametrize(
    ("bounds", "new", "old", "after"),
    [
        pytest.param(Bounds(4, 1, 0), (0, 0), (4, 4), (1, 4), id="surge first"),
        pytest.param(Bounds(4, 1, 0), (1, 0), (4, 4), (1, 4), id="wait until it is available"),
        pytest.param(Bounds(4, 1, 0), (1, 1), (4, 4), (1, 3), id="then shrink the old"),
        pytest.param(Bounds(4, 0, 1), (0, 0), (4, 4), (0, 3), id="no surge: shrink first"),
        pytest.param(Bounds(4, 0, 1), (0, 0), (3, 3), (1, 3), id="then grow"),
        pytest.param(Bounds(4, 1, 1), (1, 0), (4, 0), (1, 3), id="broken old pods go first"),
        pytest.param(Bounds(8, 4, 0), (8, 4), (4, 10), (8, 4), id="a status that lags lets nothing through"),
        pytest.param(Bounds(8, 5, 0), (8, 5), (5, 10), (8, 3), id="counts only what is still wanted"),
        pytest.param(Bounds(3, 1, 0), (5, 5), (0, 0), (3, 0), id="shrinks the new one to size"),
    ],
)
def test_one_step(bounds: Bounds, new: tuple[int, int], old: tuple[int, int], after: tuple[int, int]) -> None:
    fresh, former = replica_set("rs2", *new), replica_set("rs1", *old)
    sizes = Sizes([former, fresh])
    roll(bounds, fresh, [former], sizes)
    assert (sizes[fresh], sizes[former]) == after


def test_scaling_keeps_proportions() -> None:
    """5 of old and 8 of new (10 wanted, 13 allowed), scaled to 20: the extra is shared as the sizes are."""
    old = replica_set("rs1", 5, 5, desired=10, maximum=13)
    new = replica_set("rs2", 8, 5, desired=10, maximum=13)
    bounds = Bounds(20, 3, 2)
    assert needs_rescale(bounds, [old, new])
    sizes = Sizes([old, new])
    rescale(bounds, new, [old], sizes, rolling=True)
    assert (sizes[old], sizes[new]) == (9, 14)


def test_scaling_a_finished_rollout_touches_only_the_new_one() -> None:
    old, new = replica_set("rs1", 0, 0), replica_set("rs2", 3, 3, desired=3, maximum=4)
    sizes = Sizes([old, new])
    rescale(Bounds(7, 1, 0), new, [old], sizes, rolling=True)
    assert (sizes[old], sizes[new]) == (0, 7)

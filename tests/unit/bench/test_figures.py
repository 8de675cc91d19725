"""Figures compare as they promise to, and percentiles are those of the samples."""

import pytest

from tests.bench.figures import Figure, percentile
from tests.bench.surroundings import STEAL, ticks


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1.0), (1, 1.0), (50, 50.0), (99, 99.0), (99.5, 100.0), (100, 100.0)]
)
def test_percentile_is_nearest_rank(percent: float, expected: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == expected


def test_percentile_of_few_samples_is_one_of_them() -> None:
    assert percentile([3.0], 99) == 3.0
    assert percentile([1.0, 2.0, 9.0], 50) == 2.0
    assert percentile([1.0, 2.0, 9.0], 99) == 9.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


@pytest.mark.parametrize(
    ("compares", "limit", "measured", "kept"),
    [("ratio", 3, 2.5, True), ("ratio", 2, 2.5, False), ("excess", 100, 60, True), ("value", 99, 100, False)],
)
def test_what_is_compared(compares: str, limit: float, measured: float, kept: bool) -> None:
    figure = Figure("f", 100, "ms", 40, limit, compares)
    assert figure.measured == measured
    assert figure.kept is kept
    assert figure.as_dict()["kept"] is kept


def test_without_a_promise_a_figure_only_informs() -> None:
    figure = Figure("f", 100, "ms", 1, None, "ratio")
    assert figure.kept
    assert figure.row()[-2:] == ("", "")
    assert figure.as_dict()["kept"] is None


def test_steal_is_the_eighth_kind_of_time() -> None:
    assert ticks("cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1 1 1 1 1 1 1\n")[STEAL] == 8

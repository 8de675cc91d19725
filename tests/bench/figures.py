"""A measured figure: ours, its floor from the same run, the ratio, and what was promised."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One row of the report. ``floor`` None where the promise is absolute. ``limit`` is the promise."""

    name: str
    ours: float
    unit: str
    floor: float | None
    limit: float
    compares: str
    """``ratio``: ours / floor against the limit. ``excess``: ours - floor. ``value``: ours alone."""

    @property
    def measured(self) -> float:
        if self.floor is None or self.compares == "value":
            return self.ours
        return self.ours / self.floor if self.compares == "ratio" else self.ours - self.floor

    @property
    def kept(self) -> bool:
        return self.measured <= self.limit

    def row(self) -> tuple[str, ...]:
        floor = "" if self.floor is None else f"{self.floor:.1f} {self.unit}"
        return (
            self.name,
            f"{self.ours:.1f} {self.unit}",
            floor,
            f"{self.compares} {self.measured:.2f}",
            f"{self.limit:g}",
            "kept" if self.kept else "MISSED",
        )


def percentile(samples: Sequence[float], percent: float) -> float:
    """From raw samples, nearest rank."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, max(0, round(percent / 100 * len(ordered) + 0.5) - 1))]


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)

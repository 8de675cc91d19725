"""A measured figure: ours, its floor from the same run, the comparison, and what was promised."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One row of the report. Without a ``limit`` it only informs; ``floor`` None where nothing compares."""

    name: str
    ours: float
    unit: str
    floor: float | None = None
    limit: float | None = None
    compares: str = "value"
    """``ratio``: ours / floor against the limit. ``excess``: ours - floor. ``value``: ours alone."""

    @property
    def measured(self) -> float:
        if self.floor is None or self.compares == "value":
            return self.ours
        return self.ours / self.floor if self.compares == "ratio" else self.ours - self.floor

    @property
    def kept(self) -> bool:
        return self.limit is None or self.measured <= self.limit

    def row(self) -> tuple[str, ...]:
        """Cells of the printed table."""
        compared = "" if self.floor is None else f"{self.compares} {self.measured:.2f}"
        return (
            self.name,
            f"{self.ours:.1f} {self.unit}",
            "" if self.floor is None else f"{self.floor:.1f} {self.unit}",
            compared,
            "" if self.limit is None else f"{self.limit:g}",
            "" if self.limit is None else "kept" if self.kept else "MISSED",
        )

    def as_dict(self) -> dict[str, Any]:
        """What ``-o json`` prints."""
        return {
            "name": self.name,
            "ours": self.ours,
            "unit": self.unit,
            "floor": self.floor,
            "compares": self.compares,
            "measured": self.measured,
            "limit": self.limit,
            "kept": self.kept if self.limit is not None else None,
        }


def percentile(samples: Sequence[float], percent: float) -> float:
    """From raw samples, nearest rank: the smallest sample that at least ``percent`` of all do not exceed."""
    if not samples:
        raise ValueError("no samples")
    ordered = sorted(samples)
    rank = -(-len(ordered) * percent // 100)
    return ordered[min(len(ordered), max(1, int(rank))) - 1]


def median(samples: Sequence[float]) -> float:
    return statistics.median(samples)

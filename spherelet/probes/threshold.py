"""Counting of a probe's results against its thresholds. Pure."""

from dataclasses import dataclass, replace
from typing import Any

DEFAULT_PERIOD_S, DEFAULT_FAILURES, DEFAULT_SUCCESSES = 10.0, 3, 1
EAGER_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Waits between the extra first attempts of network probes: who is up is seen at once."""


@dataclass(frozen=True, slots=True)
class Counting:
    """A run of equal results. ``settled`` is the verdict so far; None before the first."""

    settled: bool | None = None
    last: bool | None = None
    run: int = 0


def count(state: Counting, ok: bool, probe: dict[str, Any]) -> Counting:
    """The state after one more result."""
    run = state.run + 1 if state.last is ok else 1
    needed = int(probe.get("successThreshold") or DEFAULT_SUCCESSES) if ok else failures_needed(probe)
    settled = ok if run >= needed else state.settled
    return replace(state, settled=settled, last=ok, run=run)


def failures_needed(probe: dict[str, Any]) -> int:
    """``failureThreshold`` with its default."""
    return int(probe.get("failureThreshold") or DEFAULT_FAILURES)


def period_s(probe: dict[str, Any]) -> float:
    """``periodSeconds`` with its default."""
    return float(probe.get("periodSeconds") or DEFAULT_PERIOD_S)


def eager_waits(probe: dict[str, Any]) -> tuple[float, ...]:
    """Waits before the regular period begins; their failures do not count. A command is too dear for that."""
    if "exec" in probe:
        return ()
    waits, total, limit = [], 0.0, period_s(probe)
    for wait in EAGER_S:
        total += wait
        if total >= limit:
            break
        waits.append(wait)
    return tuple(waits)

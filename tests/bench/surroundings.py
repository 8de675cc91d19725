"""What else the machine did during a run: who reads the figures has to know."""

import os
from dataclasses import dataclass
from pathlib import Path

STEAL = 7
"""Column of ``/proc/stat``'s ``cpu`` line (proc_stat(5)): time that other guests of the hypervisor had."""


@dataclass(frozen=True)
class Surroundings:
    """Load average, and CPU ticks of all kinds, when the run began."""

    load: float
    ticks: tuple[int, ...]

    @staticmethod
    def now() -> "Surroundings":
        return Surroundings(os.getloadavg()[0], ticks(Path("/proc/stat").read_text()))

    def steal_percent(self) -> float:
        """Share of CPU time since then that the hypervisor gave to others."""
        passed = [now - then for now, then in zip(Surroundings.now().ticks, self.ticks, strict=True)]
        return 100 * passed[STEAL] / max(1, sum(passed))


def ticks(stat: str) -> tuple[int, ...]:
    """user, nice, system, idle, iowait, irq, softirq, steal of all CPUs together; guest time is in user already."""
    return tuple(int(word) for word in stat.splitlines()[0].split()[1:9])

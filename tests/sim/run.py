"""Runs one seed in virtual time, in a folder of its own, with nothing left behind."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.sim.options import Options, swarm
from tests.sim.story import story
from tests.sim.virtual_loop import run
from tests.sim.world import World, deterministic, run_world

TRACE_LINES = 60


def run_seed(seed: int, change: Callable[[Options], Options] = lambda options: options) -> tuple[World, list[str]]:
    """The world at its end, and what everybody said. A failure carries how to replay it and the end of the trace."""
    trace: list[str] = []
    options = change(swarm(seed))
    with tempfile.TemporaryDirectory(prefix="sphere-sim-") as folder, deterministic(seed, trace):
        try:
            return run(run_world(seed, options, Path(folder), trace, story)), trace
        except BaseException as err:
            tail = "\n".join(trace[-TRACE_LINES:])
            err.add_note(f"{options}\n{tail}\nreplay: python -m pytest tests/sim/test_seeds.py --seed {seed}")
            raise

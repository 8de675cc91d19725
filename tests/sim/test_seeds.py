"""Whole clusters under seeded faults in virtual time. A failure prints the command that replays it exactly."""

import pytest

from tests.sim.run import run_seed


def test_nothing_is_promised_that_does_not_hold(seed: int, request: pytest.FixtureRequest) -> None:
    _, trace = run_seed(seed)
    if request.config.getoption("--seed") is not None:
        print("\n".join(trace))

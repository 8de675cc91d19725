"""A seed replays exactly: the same sentences at the same virtual times, whatever Python hashes strings to."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.run import run_seed

ROOT = Path(__file__).parents[2]
PRINT_DIGEST = "from tests.sim.test_replay import digest_of; print(digest_of({seed}))"


def digest_of(seed: int) -> str:
    """Of everything that was said."""
    _, trace = run_seed(seed)
    return hashlib.sha256("\n".join(trace).encode()).hexdigest()


@pytest.mark.parametrize("number", [7, 8])
def test_a_run_repeats_itself(number: int) -> None:
    _, first = run_seed(number)
    _, second = run_seed(number)
    assert first == second
    assert len(first) > 100


def test_a_run_does_not_depend_on_hash_order() -> None:
    digests = []
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", PRINT_DIGEST.format(seed=7)],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=100,
            check=True,
        )
        digests.append(done.stdout.strip())
    assert digests[0] == digests[1]

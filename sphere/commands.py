"""Run the box's own tools and turn their failures into messages."""

import subprocess
from collections.abc import Sequence

from common.errors import Terminal

TIMEOUT_S = 60.0


def run(argv: Sequence[str], *, stdin: str = "", timeout_s: float = TIMEOUT_S, task: str = "") -> str:
    """Standard output of ``argv``. Raises ``Terminal`` with its own words, after ``task`` or else the command."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise Terminal(f"{argv[0]} is not installed; run `make up`, which installs what is missing") from None
    except subprocess.TimeoutExpired:
        raise Terminal(f"`{' '.join(argv)}` did not end within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()
        raise Terminal(f"{task}: {words}" if task else f"`{' '.join(argv)}` failed: {words}")
    return done.stdout


def succeeds(argv: Sequence[str], timeout_s: float = TIMEOUT_S) -> bool:
    """Whether ``argv`` ends with status 0, and in time; what it prints is dropped."""
    try:
        done = subprocess.run(argv, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0

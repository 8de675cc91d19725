"""``--seed N`` replays one run of the simulator; ``--seeds N`` runs the first N instead of the usual ones."""

import pytest

USUAL_SEEDS = 30


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the simulator."""
    parser.addoption("--seed", type=int, default=None, help="simulator: run this seed alone, and print its trace")
    parser.addoption("--seeds", type=int, default=USUAL_SEEDS, help="simulator: how many seeds to run")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Seeds of tests that take one."""
    if "seed" in metafunc.fixturenames and not any(
        mark.args[0] == "seed" for mark in metafunc.definition.iter_markers("parametrize")
    ):
        chosen = metafunc.config.getoption("--seed")
        seeds = [chosen] if chosen is not None else range(metafunc.config.getoption("--seeds"))
        metafunc.parametrize("seed", seeds)

"""Probe thresholds as documented for ``v1.Probe``."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spherelet.probes.grpc_health import parse_response
from spherelet.probes.threshold import Counting, count, eager_waits


def settle(results: str, probe: dict[str, Any]) -> str:
    """Verdict after each of ``results`` (``+`` success, ``-`` failure): ``?`` before the first."""
    state, out = Counting(), ""
    for each in results:
        state = count(state, each == "+", probe)
        out += "?" if state.settled is None else "+" if state.settled else "-"
    return out


def test_defaults_need_one_success_and_three_failures() -> None:
    assert settle("--+--+---+", {}) == "??+++++" + "+-+"


def test_thresholds_count_consecutive_results() -> None:
    probe = {"successThreshold": 2, "failureThreshold": 2}
    assert settle("+-+--++", probe) == "????--+"


@given(st.text(alphabet="+-", max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_a_verdict_changes_only_after_a_whole_run(results: str, successes: int, failures: int) -> None:
    verdicts = settle(results, {"successThreshold": successes, "failureThreshold": failures})
    for index in range(len(verdicts)):
        if index and verdicts[index] != verdicts[index - 1]:
            size = successes if verdicts[index] == "+" else failures
            assert results[: index + 1].endswith(verdicts[index] * size)


def test_eager_attempts_fit_into_the_first_period() -> None:
    assert sum(eager_waits({"tcpSocket": {}, "periodSeconds": 1})) < 1
    assert eager_waits({"exec": {}}) == ()


def test_grpc_answers() -> None:
    assert parse_response(b"\0\0\0\0\2\x08\1") == 1
    assert parse_response(b"\0\0\0\0\0") == 0
    assert parse_response(b"\0\0\0\0\5\x08\1") is None
    assert parse_response(b"") is None

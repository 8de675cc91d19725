"""Log records: selection and tail agree with a plain reading of the file."""

from hypothesis import given
from hypothesis import strategies as st

from spherelet.server.crilog import Record, Selection, parse, render_lines, tail_offset

LINES = st.lists(
    st.tuples(
        st.sampled_from(["stdout", "stderr"]),
        st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"")), min_size=1, max_size=3),
    ),
    max_size=12,
)


def as_file(lines: list[tuple[str, list[bytes]]]) -> bytes:
    """Every line in pieces, as a writer with a small buffer makes them."""
    out = b""
    for stream, pieces in lines:
        for index, piece in enumerate(pieces):
            tag = b"F" if index == len(pieces) - 1 else b"P"
            out += b"2026-01-02T03:04:05.678901234+00:00 " + stream.encode() + b" " + tag + b" " + piece + b"\n"
    return out


@given(LINES, st.integers(0, 14))
def test_tail_gives_the_last_whole_lines(lines: list[tuple[str, list[bytes]]], count: int) -> None:
    block = as_file(lines)
    offset = tail_offset(block, count)
    shown = b"".join(render_lines(block[max(0, offset) :].split(b"\n"), Selection()))
    expected = [b"".join(pieces) + b"\n" for _, pieces in lines]
    assert shown == b"".join(expected[max(0, len(expected) - count) :])
    assert (offset < 0) == (count >= len(lines) and count > 0)


@given(LINES)
def test_one_stream_is_what_that_stream_wrote(lines: list[tuple[str, list[bytes]]]) -> None:
    shown = b"".join(render_lines(as_file(lines).split(b"\n"), Selection(stream="stderr")))
    assert shown == b"".join(b"".join(pieces) + b"\n" for stream, pieces in lines if stream == "stderr")


@given(st.binary(max_size=80))
def test_garbage_is_skipped(line: bytes) -> None:
    record = parse(line)
    assert record is None or record.stream in ("stdout", "stderr")
    b"".join(render_lines([line], Selection(since_s=1.0, timestamps=True)))


def test_since_compares_times_with_zones() -> None:
    record = Record(b"2026-01-02T03:04:05.250000000+01:00", "stdout", b"x\n")
    assert record.seconds == 1767319445.25

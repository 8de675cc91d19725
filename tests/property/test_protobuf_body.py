"""No bytes make the protobuf decoder fail in another way than by refusing them."""

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api import protobuf_body
from controller.api.status import ApiError

KINDS = [("v1", "Pod"), ("v1", "Service"), ("apps/v1", "Deployment"), ("v1", "Event"), ("policy/v1", "Eviction")]


def _field(number: int, value: bytes) -> bytes:
    size = len(value)
    return bytes([number << 3 | 2]) + bytes([size & 0x7F | 0x80, size >> 7]) + value


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(KINDS), st.binary(max_size=200), st.lists(st.integers(1, 15), max_size=6))
def test_decoding_refuses_or_succeeds(kind: tuple[str, str], raw: bytes, path: list[int]) -> None:
    for number in path:
        raw = _field(number, raw)
    meta = _field(1, kind[0].encode()) + _field(2, kind[1].encode())
    with contextlib.suppress(ApiError):
        protobuf_body.decode(protobuf_body.MAGIC + _field(1, meta) + _field(2, raw))

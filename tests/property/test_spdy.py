"""SPDY framing: what one side writes the other reads, in any split; garbage is refused, never worse."""

import contextlib
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spherelet.server import spdy

HEADERS = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=("Ll", "Nd")), min_size=1, max_size=20),
    st.text(max_size=40).filter(lambda text: text.isprintable()),
    max_size=8,
)


def test_dictionary_is_the_one_of_the_spec() -> None:
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


@given(st.lists(HEADERS, min_size=1, max_size=5), st.binary(max_size=200), st.randoms(use_true_random=False))
def test_streams_round_trip_in_any_split(headers: list[dict[str, str]], body: bytes, rng: random.Random) -> None:
    client, server = spdy.Connection(), spdy.Connection()
    wire = b"".join(client.open(2 * i + 1, each) for i, each in enumerate(headers)) + spdy.data(1, body, end=True)
    events: list[spdy.Event] = []
    while wire:
        size = rng.randint(1, len(wire))
        events += server.receive(wire[:size])
        wire = wire[size:]
    *opened, data = events
    assert opened == [spdy.Opened(2 * i + 1, each, False) for i, each in enumerate(headers)]
    assert data == spdy.Data(1, body, True)
    replies = b"".join(server.reply(2 * i + 1, each) for i, each in enumerate(headers))
    assert client.receive(replies) == []


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_ignored(wire: bytes) -> None:
    connection = spdy.Connection()
    with contextlib.suppress(spdy.ProtocolError):
        connection.receive(wire)


@given(st.binary(max_size=100), st.integers(0, 99), st.integers(0, 255))
def test_damaged_frames_are_refused_or_ignored(tail: bytes, at: int, value: int) -> None:
    wire = bytearray(spdy.Connection().open(1, {"streamtype": "data", "port": "80", "requestid": "0"}) + tail)
    wire[at % len(wire)] = value
    with contextlib.suppress(spdy.ProtocolError):
        spdy.Connection().receive(bytes(wire))


def test_header_bomb_is_refused() -> None:
    packer = zlib.compressobj(zdict=spdy.DICTIONARY)
    block = packer.compress(b"\0" * (8 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = b"\x80\x03\x00\x01" + (len(block) + 10).to_bytes(4, "big") + b"\0\0\0\1" + b"\0" * 6 + block
    with pytest.raises(spdy.ProtocolError, match="over the limit"):
        spdy.Connection().receive(frame)


def test_pings_of_the_client_are_answered() -> None:
    ping = b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x07"
    assert spdy.Connection().receive(ping) == [spdy.Pinged(ping)]

"""How messages of each exec subprotocol are written and read."""

import json

import pytest

from spherelet.server.remotecommand import (
    PROTOCOLS,
    STDOUT,
    V1,
    V1_BASE64,
    V4,
    V4_BASE64,
    V5,
    Framing,
    exit_status,
    failure_status,
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256))])
def test_what_is_written_is_read(protocol: str, payload: bytes) -> None:
    framing = Framing(protocol)
    message = framing.message(STDOUT, payload)
    assert framing.parse(message) == (STDOUT, payload)
    assert message.isascii() or not framing.is_text


def test_a_message_begins_with_its_channel() -> None:
    assert Framing(V1).message(1, b"out") == b"\1out"
    assert Framing(V1_BASE64).message(1, b"out") == b"1b3V0"
    assert Framing(V4_BASE64).message(3, b"") == b"3"


def test_nonsense_is_no_message() -> None:
    assert Framing(V4).parse(b"") is None
    for text in (b"", b"x", b"0%%%", b"0abc"):
        assert Framing(V1_BASE64).parse(text) is None


def test_older_clients_hear_of_failures_only() -> None:
    failed = failure_status("no such command")
    for protocol in (V5, V4, V4_BASE64):
        assert json.loads(Framing(protocol).ending(exit_status(0)) or b"") == exit_status(0)
    for protocol in (V1, V1_BASE64):
        assert Framing(protocol).ending(exit_status(0)) is None
        assert Framing(protocol).ending(failed) == b"no such command"

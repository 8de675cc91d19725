"""Every line of a daemon's log is one JSON object, and a peer that hangs up is no error."""

import asyncio
import json
import logging
import sys

import pytest

from common.entry import on_loop_error
from common.logs import JsonFormatter


def test_what_libraries_log_is_one_object_a_line() -> None:
    try:
        raise ValueError("of\ntwo lines")
    except ValueError:
        record = logging.LogRecord("lib", logging.ERROR, "f", 1, 'said "%s"\n', ("x",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["component"], entry["level"], entry["event"]) == ("lib", "error", 'said "x"\n')
    assert entry["exception"].endswith("two lines")
    assert entry["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("error", "errors"),
    [(RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed"), 0), (KeyError("x"), 1)],
)
def test_a_peer_that_hangs_up_is_no_error(error: Exception, errors: int, caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    try:
        on_loop_error(loop, {"message": "Fatal error on SSL protocol\nmore", "exception": error})
    finally:
        loop.close()
    assert len([each for each in caplog.records if each.levelno >= logging.ERROR]) == errors

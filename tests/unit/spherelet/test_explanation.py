"""What a user reads of a failed pull."""

import pytest

from spherelet.images.explanation import (
    DISK_FULL,
    NO_CREDENTIALS,
    NOT_THERE,
    WRONG_CREDENTIALS,
    pull_message,
)


@pytest.mark.parametrize(
    ("text", "code", "begins"),
    [
        ("write /x/data: no space left on device", "UNKNOWN", DISK_FULL),
        ("write /x/data: disk quota exceeded", "UNKNOWN", DISK_FULL),
        ("registry.example/a:1: not found", "NOT_FOUND", NOT_THERE),
        ("failed with status code [manifests 1]: 401 Unauthorized", "UNKNOWN", NO_CREDENTIALS),
        ("pull access denied: insufficient_scope: authorization failed", "UNKNOWN", NO_CREDENTIALS),
        ("dial tcp: lookup nowhere.example: no such host", "UNKNOWN", "the registry cannot be reached"),
        ("dial tcp 10.0.0.1:443: connect: connection refused", "UNKNOWN", "the registry cannot be reached"),
        ("http: server gave HTTP response to HTTPS client", "UNKNOWN", "the registry speaks plain HTTP; allow"),
        ("x509: certificate signed by unknown authority", "UNKNOWN", "the registry's certificate is not trusted; name"),
        ("no match for platform in manifest: not found", "NOT_FOUND", "the image is not for this host's architecture"),
        ("unexpected commit digest sha256:1, expected sha256:2", "FAILED_PRECONDITION", "the registry sent other"),
    ],
)
def test_cause_and_cure_come_before_the_runtimes_words(text: str, code: str, begins: str) -> None:
    message = pull_message(text, code, with_credentials=False)
    assert message.startswith(begins)
    assert message.endswith(f"desc = {text}")


def test_credentials_that_were_given_are_the_ones_to_correct() -> None:
    assert pull_message("403 Forbidden", "UNKNOWN", with_credentials=True).startswith(WRONG_CREDENTIALS)


def test_what_is_not_known_is_passed_on() -> None:
    message = pull_message("the moon is full", "DEADLINE_EXCEEDED", with_credentials=False)
    assert message == "rpc error: code = DeadlineExceeded desc = the moon is full"

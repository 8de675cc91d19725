"""Who may read metrics."""

import pytest

from common.http import allowed


def certificate(name, group=""):
    return {"subject": ((("organizationName", group),), (("commonName", name),))}


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (None, False),
        ({}, False),
        (certificate("prometheus"), True),
        (certificate("somebody", "system:monitoring"), True),
        (certificate("kubernetes-admin", "system:masters"), True),
        (certificate("host-2", "sphere:agents"), False),
        (certificate("Prometheus"), False),
    ],
)
def test_allowed(peer, expected):
    assert allowed(peer) is expected

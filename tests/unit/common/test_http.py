"""Who may read metrics, and what they get when there are none now."""

import pytest

from common.errors import Retryable
from common.http import Answer, Page, allowed, answer


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


NOBODY, MONITOR = None, {"subject": ((("commonName", "prometheus"),),)}
STRANGER = {"subject": ((("commonName", "host-1"),),)}


async def figures() -> Answer:
    return Answer(200, b"1")


async def away() -> Answer:
    raise Retryable("nft is away")


PAGES = {"/metrics": Page(figures), "/healthz": Page(figures, public=True), "/away": Page(away, public=True)}


@pytest.mark.parametrize(
    ("method", "path", "certificate", "status"),
    [
        ("GET", "/healthz", NOBODY, 200),
        ("GET", "/metrics", MONITOR, 200),
        ("GET", "/metrics", NOBODY, 401),
        ("GET", "/metrics", STRANGER, 403),
        ("POST", "/metrics", MONITOR, 405),
        ("GET", "/nothing", MONITOR, 404),
        ("GET", "/away", NOBODY, 503),
    ],
)
async def test_pages_answer_whom_they_are_for(method, path, certificate, status):
    assert (await answer(PAGES, method, path, certificate)).status == status


async def test_a_page_that_cannot_be_made_now_says_why():
    assert (await answer(PAGES, "GET", "/away", NOBODY)).body == b"nft is away\n"

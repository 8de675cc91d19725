"""Links of proxied pages."""

import pytest

from controller.api.links import rewrite_link, rewrite_page

PREFIX = "/api/v1/namespaces/a/pods/p/proxy"
HOSTS = frozenset({"api:6443", "10.64.0.1:80"})


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("/x?a=/b#c", f"{PREFIX}/x?a=/b#c"),
        ("/", f"{PREFIX}/"),
        (f"{PREFIX}/x", f"{PREFIX}/x"),
        ("http://10.64.0.1:80/x", f"{PREFIX}/x"),
        ("https://api:6443/x/", f"{PREFIX}/x/"),
        ("//api:6443/x", f"{PREFIX}/x"),
        ("http://elsewhere/x", "http://elsewhere/x"),
        ("//elsewhere/x", "//elsewhere/x"),
        ("x/y", "x/y"),
        ("../x", "../x"),
        ("#here", "#here"),
        ("mailto:a@b", "mailto:a@b"),
        ("http://[x", "http://[x"),
        ("", ""),
    ],
)
def test_links(link: str, expected: str) -> None:
    assert rewrite_link(link, PREFIX, HOSTS) == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ('<a href="/x">y</a>', f'<a href="{PREFIX}/x">y</a>'),
        ("<A class=a HREF = '/x' title=\"href='/y'\">", f"<A class=a HREF = '{PREFIX}/x' title=\"href='/y'\">"),
        ("<img src=/x.png alt=>", f"<img src={PREFIX}/x.png alt=>"),
        ('<form method=post action="/x"><input name="/y">', f'<form method=post action="{PREFIX}/x"><input name="/y">'),
        ("<!-- <a href='/x'> -->", "<!-- <a href='/x'> -->"),
        (
            "<script src='/x.js'>a='<a href=\"/y\">'</script><b>",
            f"<script src='{PREFIX}/x.js'>a='<a href=\"/y\">'</script><b>",
        ),
        ("1 < 2 &amp &nbsp; <a href='/x", "1 < 2 &amp &nbsp; <a href='/x"),
        ("<p>\xe4 href=/x</p>", "<p>\xe4 href=/x</p>"),
    ],
)
def test_pages_change_in_their_links_only(page: str, expected: str) -> None:
    for encoding in ("utf-8", "latin-1"):
        assert rewrite_page(page.encode(encoding), PREFIX, HOSTS) == expected.encode(encoding)

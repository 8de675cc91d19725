"""Links in answers that came through the API's proxy: what begins at the server's root begins at the proxy's. Pure.

Spec: apimachinery ``util/proxy.Transport``. A page knows nothing of the path under which it is shown, so links, forms
and redirects that lead to its own server are given that path; all other bytes stay as they are.
"""

import re
from typing import Final
from urllib.parse import urlsplit

ATTRIBUTES: Final = frozenset(
    {
        "action",
        "background",
        "cite",
        "classid",
        "codebase",
        "data",
        "formaction",
        "href",
        "icon",
        "longdesc",
        "manifest",
        "poster",
        "profile",
        "src",
        "usemap",
    }
)
"""Attributes of HTML that hold a URL."""
_PIECE: Final = re.compile(
    # Text in which a "<" begins no tag comes first, and is passed over as a whole.
    r"<!--.*?(?:-->|\Z)"
    r"|<(?P<verbatim>script|style|textarea|title)(?P<own>(?:\"[^\"]*\"|'[^']*'|[^'\">])*)>(?P<text>.*?)(?=</(?P=verbatim)|\Z)"
    r"|<(?P<tag>[a-z][^\s/>]*)(?P<attributes>(?:\"[^\"]*\"|'[^']*'|[^'\">])*)>",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE: Final = re.compile(r"([^\s=/>\"']+)(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s\"'>]+)")


def rewrite_link(link: str, prefix: str, hosts: frozenset[str]) -> str:
    """``link`` as seen from outside of the proxy. ``hosts`` are the names (with port) of the server behind it."""
    try:
        parts = urlsplit(link)
    except ValueError:
        return link
    if parts.netloc and parts.netloc not in hosts:
        return link
    if not parts.path.startswith("/"):
        return link
    path = parts.path if parts.path.startswith(f"{prefix}/") else prefix + parts.path
    return parts._replace(scheme="", netloc="", path=path).geturl()


def rewrite_page(page: bytes, prefix: str, hosts: frozenset[str]) -> bytes:
    """An HTML page (in any encoding that contains ASCII) with its links rewritten."""

    def attribute(found: re.Match[str]) -> str:
        name, equals, value = found.groups()
        if name.lower() not in ATTRIBUTES:
            return found[0]
        quote = value[0] if value[0] in "\"'" else ""
        return name + equals + quote + rewrite_link(value.strip(quote) if quote else value, prefix, hosts) + quote

    def piece(found: re.Match[str]) -> str:
        if found["verbatim"]:
            return f"<{found['verbatim']}{_ATTRIBUTE.sub(attribute, found['own'])}>{found['text']}"
        if found["tag"]:
            return f"<{found['tag']}{_ATTRIBUTE.sub(attribute, found['attributes'])}>"
        return found[0]

    return _PIECE.sub(piece, page.decode("latin-1")).encode("latin-1")

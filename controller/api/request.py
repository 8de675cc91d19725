"""A request and its answers, free of any HTTP framework, and what a path means. Pure.

Spec: apiserver ``endpoints/request.RequestInfoFactory``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.api.access import ANONYMOUS_NAME, Attributes, CertInfo, User
from controller.kinds.kind import ResourceKey

_METHOD_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Under a namespace's own path these are subresources of the namespace, not resources inside of it.
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
# Entering a pod takes one right, however the client asks: WebSocket handshakes are GET, upgrades to SPDY are POST.
_PODS = ResourceKey("", "pods")
_POD_STREAMS = frozenset({"exec", "attach", "portforward"})
FALSE_VALUES = frozenset({"", "0", "f", "F", "false", "FALSE", "False"})


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names. ``resource`` is empty outside of the resource API; ``subpath`` follows a proxy subresource."""

    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""
    subpath: str = ""

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.group, self.resource)

    def attributes(self, verb: str) -> Attributes:
        """What the authorizer is asked."""
        return Attributes(
            verb, self.group, self.resource, self.subresource, self.namespace, self.name, self.path, self.version
        )


@dataclass(slots=True)
class Request:
    """One HTTP request. ``http`` is the server's own object, for handlers that take over the connection."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    peer: CertInfo | None
    read: Callable[[], Awaitable[bytes]]
    http: Any = None
    user: User = field(default_factory=lambda: User(ANONYMOUS_NAME))
    target: Target = field(default_factory=lambda: Target(""))
    verb: str = ""
    warnings: list[str] = field(default_factory=list)

    def text(self, name: str, default: str = "") -> str:
        """First value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """A boolean query parameter; what is not a boolean counts as true, as in conversion to Go's bool."""
        values = self.query.get(name)
        return values is not None and len(values) > 0 and values[0] not in FALSE_VALUES


@dataclass(slots=True)
class Reply:
    """A whole answer. ``body`` may be given in pieces, which are sent without being joined."""

    status: int
    body: bytes | Sequence[bytes]
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


Write = Callable[[bytes], Awaitable[None]]


@dataclass(slots=True)
class Stream:
    """An answer of unknown length: ``run`` writes until it returns or the client leaves."""

    run: Callable[[Write], Awaitable[None]]
    content_type: str = "application/json"


Answer = Reply | Stream | Any
"""``Any``: an already prepared response of the server framework (WebSocket)."""


def parse_target(path: str) -> Target:
    """Read a decoded URL path."""
    parts = [part for part in path.split("/") if part]
    if not parts or parts[0] not in ("api", "apis"):
        return Target(path)
    if parts[0] == "api":
        group, rest = "", parts[1:]
    else:
        if len(parts) < 3:
            return Target(path)
        group, rest = parts[1], parts[2:]
    if len(rest) < 2:
        return Target(path)
    version, rest = rest[0], rest[1:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in _NAMESPACE_SUBRESOURCES:
        namespace, rest = rest[1], rest[2:]
    elif rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
    tail = rest[3:]
    return Target(
        path=path,
        group=group,
        version=version,
        namespace=namespace,
        resource=rest[0],
        name=rest[1] if len(rest) > 1 else "",
        subresource=rest[2] if len(rest) > 2 else "",
        subpath="/".join(tail),
    )


def verb_of(method: str, target: Target, watching: bool) -> str:
    """The API verb of a request; lower-case method outside of the resource API."""
    if not target.resource:
        return method.lower()
    verb = _METHOD_VERBS.get(method, method.lower())
    if verb == "get" and target.key == _PODS and target.subresource in _POD_STREAMS:
        return "create"
    if target.name:
        return "watch" if verb == "get" and watching and not target.subresource else verb
    if verb == "get":
        return "watch" if watching else "list"
    return "deletecollection" if verb == "delete" else verb

"""Who asks, and whether they may: the interfaces between the request pipeline and what implements them. Pure.

``authn.py`` and ``authz.py`` implement the two protocols.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from controller.api.status import unauthorized

ANONYMOUS_NAME = "system:anonymous"
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class CertInfo:
    """A client certificate that TLS has verified. ``common_name`` is the user, ``organizations`` are groups."""

    common_name: str
    organizations: tuple[str, ...]
    der: bytes = b""


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated caller."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is asked for. ``resource`` is empty for paths outside the resource API (then ``path`` counts)."""

    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    path: str
    version: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and why (not)."""

    allowed: bool
    reason: str = ""


class Authenticator(Protocol):
    """Tells who sent a request."""

    def authenticate(self, peer_certificate: CertInfo | None, authorization: str | None) -> User:
        """The caller, ``system:anonymous`` included. Raises ``ApiError`` 401 for wrong credentials."""
        ...


class Authorizer(Protocol):
    """Decides whether ``user`` may do what ``attributes`` say."""

    def authorize(self, user: User, attributes: Attributes) -> Decision:
        """Must not block: called on every request."""
        ...


class CertificateAuthenticator:
    """Client certificates only."""

    def authenticate(self, peer_certificate: CertInfo | None, authorization: str | None) -> User:
        if peer_certificate is not None:
            groups = (*peer_certificate.organizations, "system:authenticated")
            return User(peer_certificate.common_name, groups=groups)
        if authorization:
            raise unauthorized()
        return User(ANONYMOUS_NAME, groups=("system:unauthenticated",))


_PUBLIC_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})


class MastersAuthorizer:
    """``system:masters`` may do everything, others may look at health and version."""

    def authorize(self, user: User, attributes: Attributes) -> Decision:
        if MASTERS in user.groups:
            return Decision(True)
        if not attributes.resource and attributes.path in _PUBLIC_PATHS:
            return Decision(True)
        return Decision(False, "only system:masters may")


def denied_message(user: User, attributes: Attributes, reason: str) -> str:
    """apiserver's words for a refusal, without the resource prefix."""
    suffix = f": {reason}" if reason else ""
    if not attributes.resource:
        return f'User "{user.name}" cannot {attributes.verb} path "{attributes.path}"{suffix}'
    resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
    where = f'in the namespace "{attributes.namespace}"' if attributes.namespace else "at the cluster scope"
    return (
        f'User "{user.name}" cannot {attributes.verb} resource "{resource}" in API group "{attributes.group}" '
        f"{where}{suffix}"
    )

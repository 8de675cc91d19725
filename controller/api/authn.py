"""Who asks: client certificates, service account tokens, anonymous; and impersonation on top."""

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import unquote

from controller.api.access import ANONYMOUS_NAME, Attributes, Authorizer, CertInfo, User, denied_message
from controller.api.status import ApiError, unauthorized
from controller.api.tokens import USER_PREFIX, InvalidToken, Tokens

AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
_EXTRA_PREFIX: Final = "impersonate-extra-"

ANONYMOUS: Final = User(ANONYMOUS_NAME, groups=(UNAUTHENTICATED,))


class Authentication:
    """The chain: certificate, then bearer token, then anonymous. A wrong credential is never taken for anonymous."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def authenticate(self, peer_certificate: CertInfo | None, authorization: str | None) -> User:
        """The caller. Raises ``ApiError`` 401 for a bad token or an unknown scheme."""
        if peer_certificate is not None and peer_certificate.common_name:
            groups = tuple(dict.fromkeys((*peer_certificate.organizations, AUTHENTICATED)))
            return User(peer_certificate.common_name, groups=groups)
        if not authorization:
            return ANONYMOUS
        scheme, _, token = authorization.strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise unauthorized()
        try:
            found = self._tokens.check(token.strip())
        except InvalidToken:
            raise unauthorized() from None
        return User(found.user_name, found.uid, found.groups, found.extra)


def impersonated(user: User, headers: Sequence[tuple[str, str]], authorizer: Authorizer) -> User:
    """The user that ``Impersonate-*`` headers ask to be, or ``user`` when there are none.

    ``headers`` have lower-case names, which may occur several times. Raises ``ApiError`` 403 when ``user`` may not
    impersonate, 500 as upstream for groups or extras without a user.
    """
    single = dict(headers)
    name, uid = single.get("impersonate-user", ""), single.get("impersonate-uid", "")
    groups: tuple[str, ...] = tuple(value for key, value in headers if key == "impersonate-group")
    extra: dict[str, tuple[str, ...]] = {}
    for key, value in headers:
        if key.startswith(_EXTRA_PREFIX):
            about = unquote(key.removeprefix(_EXTRA_PREFIX))
            extra[about] = (*extra.get(about, ()), value)
    if not name:
        if groups or uid or extra:
            raise ApiError(500, "InternalError", "requested impersonation without impersonating a user")
        return user
    may = _guard(user, authorizer)
    if name.startswith(USER_PREFIX) and name.count(":") == 3:
        namespace, account = name.removeprefix(USER_PREFIX).split(":")
        may("", "serviceaccounts", "", namespace, account)
        groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    else:
        may("", "users", "", "", name)
    for group in groups:
        may("", "groups", "", "", group)
    for key, values in extra.items():
        for value in values:
            may("authentication.k8s.io", "userextras", key, "", value)
    if uid:
        may("authentication.k8s.io", "uids", "", "", uid)
    added = UNAUTHENTICATED if name == ANONYMOUS_NAME else AUTHENTICATED
    return User(name, uid, tuple(dict.fromkeys((*groups, added))), extra)


def _guard(user: User, authorizer: Authorizer) -> Callable[[str, str, str, str, str], None]:
    def may(group: str, resource: str, subresource: str, namespace: str, name: str) -> None:
        attributes = Attributes("impersonate", group, resource, subresource, namespace, name, "")
        decision = authorizer.authorize(user, attributes)
        if not decision.allowed:
            what = f'{resource} "{name}" is forbidden: {denied_message(user, attributes, decision.reason)}'
            raise ApiError(403, "Forbidden", what, {"name": name, "kind": resource})

    return may

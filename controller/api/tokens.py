"""Service account tokens: ES256 JWTs bound to a service account, and optionally to a pod. Signing and checking.

Spec: KEP-1205 (bound service account tokens), RFC 7519, OpenID Connect Discovery 1.0.
"""

import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from common.clock import Clock
from controller.kinds.kind import Object, ResourceKey

SERVICE_ACCOUNTS: Final = ResourceKey("", "serviceaccounts")
PODS: Final = ResourceKey("", "pods")
NODES: Final = ResourceKey("", "nodes")
SECRETS: Final = ResourceKey("", "secrets")
EXPIRATION_S_MIN: Final = 600
EXPIRATION_S_MAX: Final = 1 << 32
CACHED_TOKENS_MAX: Final = 4096
TOKEN_BYTES_MAX: Final = 8192
USER_PREFIX: Final = "system:serviceaccount:"
_LEEWAY_S: Final = 5

Uid = Callable[[ResourceKey, str, str], str | None]
"""Uid of an object that exists and is not being deleted for long, else None."""


class InvalidToken(Exception):
    """The token is not ours, has expired, or what it is bound to is gone."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a valid token stands for. ``extra`` is as in ``UserInfo.extra``."""

    namespace: str
    name: str
    uid: str
    audiences: tuple[str, ...]
    extra: dict[str, tuple[str, ...]]

    @property
    def user_name(self) -> str:
        return f"{USER_PREFIX}{self.namespace}:{self.name}"

    @property
    def groups(self) -> tuple[str, ...]:
        return ("system:serviceaccounts", f"system:serviceaccounts:{self.namespace}", "system:authenticated")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a token dies with: a ``Pod``, ``Node`` or ``Secret``; ``node`` is where the pod runs (name, uid)."""

    kind: str
    name: str
    uid: str
    node: tuple[str, str] | None = None


_BOUND_RESOURCES: Final = {"pod": PODS, "secret": SECRETS, "node": NODES}


class Tokens:
    """Issues and checks the tokens of one issuer."""

    def __init__(self, pem: bytes, issuer: str, clock: Clock, uid_of: Uid) -> None:
        self._key = ECKey.import_key(pem)
        self._kid = self._key.thumbprint()
        self.issuer = issuer
        self._clock = clock
        self._uid_of = uid_of
        self._checked: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def issue(
        self, namespace: str, name: str, uid: str, audiences: Sequence[str], seconds: int, bound: Bound | None = None
    ) -> tuple[str, float]:
        """A new token and when it expires (seconds since the epoch)."""
        now = int(self._clock.now())
        private: dict[str, Any] = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}}
        if bound is not None:
            private[bound.kind.lower()] = {"name": bound.name, "uid": bound.uid}
            if bound.node is not None:
                private["node"] = {"name": bound.node[0], "uid": bound.node[1]}
        claims = {
            "aud": list(audiences) or [self.issuer],
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": private,
            "sub": f"{USER_PREFIX}{namespace}:{name}",
        }
        token = jwt.encode({"alg": "ES256", "kid": self._kid}, claims, self._key, algorithms=["ES256"])
        return token, float(now + seconds)

    def check(self, token: str, audiences: Sequence[str] = ()) -> Identity:
        """Whom ``token`` stands for. Raises ``InvalidToken``. Signatures are verified once and remembered."""
        claims = self._claims(token)
        now = self._clock.now()
        if now > claims.get("exp", 0) + _LEEWAY_S:
            raise InvalidToken("service account token has expired")
        if now < claims.get("nbf", 0) - _LEEWAY_S:
            raise InvalidToken("service account token is not valid yet")
        given = claims.get("aud") or []
        accepted = tuple(each for each in (audiences or (self.issuer,)) if each in given)
        if not accepted:
            raise InvalidToken(f"token audiences {given} is invalid for the target audiences")
        return self._identity(claims, accepted)

    def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > TOKEN_BYTES_MAX:
            raise InvalidToken("the token is too long")
        known = self._checked.get(token)
        if known is not None:
            self._checked.move_to_end(token)
            return known
        try:
            decoded = jwt.decode(token, self._key, algorithms=["ES256"])
        except (JoseError, ValueError, UnicodeError) as err:
            raise InvalidToken(f"invalid bearer token: {err}") from err
        claims = decoded.claims
        if not isinstance(claims, dict) or claims.get("iss") != self.issuer:
            raise InvalidToken("the token has another issuer")
        self._checked[token] = claims
        if len(self._checked) > CACHED_TOKENS_MAX:
            self._checked.popitem(last=False)
        return claims

    def _identity(self, claims: dict[str, Any], audiences: tuple[str, ...]) -> Identity:
        private = claims.get("kubernetes.io")
        if not isinstance(private, dict) or not isinstance(private.get("serviceaccount"), dict):
            raise InvalidToken("the token has no service account")
        namespace, account = str(private.get("namespace", "")), private["serviceaccount"]
        if self._uid_of(SERVICE_ACCOUNTS, namespace, account.get("name", "")) != account.get("uid"):
            raise InvalidToken(f"service account {namespace}/{account.get('name')} has been deleted")
        extra: dict[str, tuple[str, ...]] = {
            "authentication.kubernetes.io/credential-id": (f"JTI={claims.get('jti', '')}",)
        }
        for kind, resource in _BOUND_RESOURCES.items():
            bound = private.get(kind)
            if not isinstance(bound, dict):
                continue
            extra[f"authentication.kubernetes.io/{kind}-name"] = (str(bound.get("name", "")),)
            extra[f"authentication.kubernetes.io/{kind}-uid"] = (str(bound.get("uid", "")),)
            if kind == "node" and "pod" in private:
                continue
            where = "" if kind == "node" else namespace
            if self._uid_of(resource, where, bound.get("name", "")) != bound.get("uid"):
                raise InvalidToken(f"the token is bound to {kind} {bound.get('name')}, which has been deleted")
        return Identity(namespace, str(account["name"]), str(account["uid"]), audiences, extra)

    def jwks(self) -> Object:
        """The public key set, as ``/openid/v1/jwks`` serves it."""
        public = dict(self._key.as_dict(private=False))
        return {"keys": [{**public, "use": "sig", "alg": "ES256", "kid": self._kid}]}

    def discovery(self, jwks_uri: str) -> Object:
        """The OpenID provider metadata."""
        return {
            "issuer": self.issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

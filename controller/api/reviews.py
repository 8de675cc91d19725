"""Questions about identity and permission: TokenRequest, TokenReview, the SubjectAccessReview family, whoami, JWKS."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from common.clock import rfc3339
from controller.api import body as bodies
from controller.api.access import Attributes, User
from controller.api.api import Call, Routes
from controller.api.authz import Authorization
from controller.api.negotiate import negotiate
from controller.api.node_authorizer import node_name
from controller.api.request import Answer, Reply
from controller.api.status import bad_request, conflict, forbidden, invalid, method_not_allowed, not_found
from controller.api.tokens import (
    EXPIRATION_S_MAX,
    EXPIRATION_S_MIN,
    PODS,
    SERVICE_ACCOUNTS,
    Bound,
    InvalidToken,
    Tokens,
)
from controller.kinds.kind import FieldError, Object, ResourceKey

AUTHN: Final = "authentication.k8s.io"
AUTHZ: Final = "authorization.k8s.io"
DEFAULT_EXPIRATION_S: Final = 3600
NODES: Final = ResourceKey("", "nodes")
SECRETS: Final = ResourceKey("", "secrets")


def install(routes: Routes, tokens: Tokens, authorization: Authorization, *, jwks_uri: str) -> None:
    """Serve the reviews, ``serviceaccounts/token`` and OpenID discovery."""
    reviews = _Reviews(tokens, authorization, jwks_uri)
    for plural, handler in (
        ("tokenreviews", reviews.token_review),
        ("selfsubjectreviews", reviews.self_subject_review),
    ):
        routes.resources[ResourceKey(AUTHN, plural)] = handler
    for plural, access in (
        ("subjectaccessreviews", reviews.subject_access),
        ("localsubjectaccessreviews", reviews.local_subject_access),
        ("selfsubjectaccessreviews", reviews.self_subject_access),
        ("selfsubjectrulesreviews", reviews.self_subject_rules),
    ):
        routes.resources[ResourceKey(AUTHZ, plural)] = access
    routes.subresources[SERVICE_ACCOUNTS, "token"] = reviews.token_request
    routes.paths["/openid/v1/jwks"] = reviews.jwks
    routes.paths["/.well-known/openid-configuration"] = reviews.openid_configuration


def user_info(user: User) -> Object:
    """``authentication/v1 UserInfo``."""
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def attributes_of(spec: Mapping[str, Any]) -> Attributes:
    """What an access review asks. Raises ``ApiError`` 400 unless it asks exactly one thing."""
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (resource is None) == (other is None):
        raise bad_request("exactly one of nonResourceAttributes or resourceAttributes must be specified")
    if other is not None:
        return Attributes(other.get("verb", ""), "", "", "", "", "", other.get("path", ""))
    assert resource is not None
    return Attributes(
        verb=resource.get("verb", ""),
        group=resource.get("group", ""),
        resource=resource.get("resource", ""),
        subresource=resource.get("subresource", ""),
        namespace=resource.get("namespace", ""),
        name=resource.get("name", ""),
        path="",
        version=resource.get("version", ""),
    )


def _check_node(call: Call, account: str, bound: Bound | None) -> None:
    """A node gets tokens for pods that run on it, and that die with them. Raises ``ApiError`` 403."""
    node = node_name(call.request.user)
    if node is None:
        return
    if bound is None or bound.kind != "Pod":
        raise forbidden(SERVICE_ACCOUNTS, account, "node requested token not bound to a pod")
    if bound.node is None or bound.node[0] != node:
        raise forbidden(SERVICE_ACCOUNTS, account, "node requested token bound to a pod scheduled on a different node")


class _Reviews:
    def __init__(self, tokens: Tokens, authorization: Authorization, jwks_uri: str) -> None:
        self._tokens = tokens
        self._authorization = authorization
        self._jwks_uri = jwks_uri

    async def _read(self, call: Call, kind: str, group: str) -> Object:
        request = call.request
        if request.method != "POST":
            raise method_not_allowed()
        negotiate(request.headers.get("Accept", ""), plain=True)
        obj, _ = bodies.decode_object(await request.read(), request.headers.get("Content-Type", ""))
        if obj.get("kind", kind) != kind:
            raise bad_request(f"{obj.get('kind')} cannot be handled as a {kind}")
        schemas = call.api.ports.schemas
        definition = f"io.k8s.api.{'authentication' if group == AUTHN else 'authorization'}.v1.{kind}"
        unknown, errors = schemas.check(definition, obj)
        if errors:
            raise bodies.decoding_error(kind, "v1", errors)
        request.warnings += bodies.judge_fields(unknown, [], bodies.strictness(request.text("fieldValidation")))
        schemas.normalize(definition, obj)
        obj.update(apiVersion=f"{group}/v1", kind=kind)
        obj.setdefault("metadata", {})
        return obj

    def _answer(self, obj: Object) -> Reply:
        obj["metadata"].setdefault("creationTimestamp", None)
        return Reply(201, orjson.dumps(obj))

    async def token_request(self, call: Call) -> Answer:
        obj = await self._read(call, "TokenRequest", AUTHN)
        namespace, name = call.request.target.namespace, call.request.target.name
        await call.api.ports.fresh()
        account = call.api.ports.cache.get(SERVICE_ACCOUNTS, namespace, name)
        if account is None:
            raise not_found(SERVICE_ACCOUNTS, name)
        spec = obj.setdefault("spec", {})
        seconds = spec.get("expirationSeconds") or DEFAULT_EXPIRATION_S
        problem = ""
        if seconds < EXPIRATION_S_MIN:
            problem = "may not specify a duration less than 10 minutes"
        elif seconds > EXPIRATION_S_MAX:
            problem = "may not specify a duration larger than 2^32 seconds"
        if problem:
            error = FieldError("FieldValueInvalid", "spec.expirationSeconds", problem, seconds)
            raise invalid(AUTHN, "TokenRequest", name, [error])
        bound = self._bound(call, namespace, name, spec.get("boundObjectRef"))
        _check_node(call, name, bound)
        audiences = spec.get("audiences") or [self._tokens.issuer]
        token, expires = self._tokens.issue(namespace, name, account.uid, audiences, seconds, bound)
        spec.update(audiences=audiences, expirationSeconds=seconds)
        obj["metadata"].update(name=name, namespace=namespace)
        obj["status"] = {"token": token, "expirationTimestamp": rfc3339(expires)}
        return self._answer(obj)

    def _bound(self, call: Call, namespace: str, account: str, ref: Mapping[str, Any] | None) -> Bound | None:
        if not ref:
            return None
        kind, name = ref.get("kind", ""), ref.get("name", "")
        resource = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}.get(kind)
        if resource is None:
            raise bad_request(f'cannot bind token for serviceaccount "{account}" to object of kind {kind}')
        entry = call.api.ports.cache.get(resource, "" if kind == "Node" else namespace, name)
        if entry is None:
            raise not_found(resource, name)
        if ref.get("uid") and ref["uid"] != entry.uid:
            why = f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record ({entry.uid})"
            raise conflict(resource, name, why)
        node = None
        if kind == "Pod":
            spec = entry.decode().get("spec") or {}
            if (spec.get("serviceAccountName") or "default") != account:
                why = "to pod running with different serviceaccount name."
                raise bad_request(f'cannot bind token for serviceaccount "{account}" {why}')
            host = call.api.ports.cache.get(NODES, "", spec.get("nodeName") or "")
            node = (host.name, host.uid) if host else None
        return Bound(kind, name, entry.uid, node)

    async def token_review(self, call: Call) -> Answer:
        obj = await self._read(call, "TokenReview", AUTHN)
        spec = obj.get("spec") or {}
        if not spec.get("token"):
            raise bad_request("token is required for TokenReview in authentication")
        try:
            found = self._tokens.check(spec["token"], spec.get("audiences") or ())
        except InvalidToken as err:
            obj["status"] = {"authenticated": False, "user": {}, "error": str(err)}
            return self._answer(obj)
        user = User(found.user_name, found.uid, found.groups, found.extra)
        obj["status"] = {"authenticated": True, "user": user_info(user), "audiences": list(found.audiences)}
        return self._answer(obj)

    async def self_subject_review(self, call: Call) -> Answer:
        obj = await self._read(call, "SelfSubjectReview", AUTHN)
        obj["status"] = {"userInfo": user_info(call.request.user)}
        return self._answer(obj)

    async def subject_access(self, call: Call) -> Answer:
        obj = await self._read(call, "SubjectAccessReview", AUTHZ)
        return self._decide(obj, self._subject(obj))

    async def local_subject_access(self, call: Call) -> Answer:
        obj = await self._read(call, "LocalSubjectAccessReview", AUTHZ)
        namespace = (obj.get("spec") or {}).get("resourceAttributes", {}).get("namespace", "")
        if namespace != call.request.target.namespace:
            raise bad_request("spec.resourceAttributes.namespace must match metadata.namespace")
        return self._decide(obj, self._subject(obj))

    async def self_subject_access(self, call: Call) -> Answer:
        obj = await self._read(call, "SelfSubjectAccessReview", AUTHZ)
        return self._decide(obj, call.request.user)

    def _subject(self, obj: Object) -> User:
        spec = obj.get("spec") or {}
        if not spec.get("user") and not spec.get("groups"):
            raise bad_request("at least one of user or group must be specified")
        extra = {key: tuple(values) for key, values in (spec.get("extra") or {}).items()}
        return User(spec.get("user", ""), spec.get("uid", ""), tuple(spec.get("groups") or ()), extra)

    def _decide(self, obj: Object, user: User) -> Reply:
        decision = self._authorization.authorize(user, attributes_of(obj.get("spec") or {}))
        obj["status"] = {"allowed": decision.allowed}
        if decision.reason:
            obj["status"]["reason"] = decision.reason
        return self._answer(obj)

    async def self_subject_rules(self, call: Call) -> Answer:
        obj = await self._read(call, "SelfSubjectRulesReview", AUTHZ)
        namespace = (obj.get("spec") or {}).get("namespace", "")
        if not namespace:
            raise bad_request("no namespace on request")
        found = self._rules(call.request.user, namespace)
        obj["status"] = {
            "resourceRules": [rule for rule in found if "nonResourceURLs" not in rule],
            "nonResourceRules": [rule for rule in found if "nonResourceURLs" in rule],
            "incomplete": False,
        }
        return self._answer(obj)

    def _rules(self, user: User, namespace: str) -> Sequence[Object]:
        if "system:masters" in user.groups:
            everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            return [everything, {"verbs": ["*"], "nonResourceURLs": ["*"]}]
        rules = dict.fromkeys(rule for _, rule in self._authorization.index.granted(user, namespace))
        return [rule.to_object() for rule in rules]

    async def jwks(self, call: Call) -> Answer:
        return Reply(200, orjson.dumps(self._tokens.jwks()), "application/jwk-set+json")

    async def openid_configuration(self, call: Call) -> Answer:
        return Reply(200, orjson.dumps(self._tokens.discovery(self._jwks_uri)))

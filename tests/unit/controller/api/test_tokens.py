"""Tokens: what is issued is accepted; expired, foreign, tampered and orphaned ones are not."""

import pytest
from joserfc.jwk import ECKey

from controller.api.access import CertInfo, MastersAuthorizer, User
from controller.api.authn import ANONYMOUS, Authentication, impersonated
from controller.api.status import ApiError
from controller.api.tokens import Bound, InvalidToken, Tokens
from controller.kinds.kind import ResourceKey


class FakeClock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class World:
    """Uids by (plural, namespace, name)."""

    def __init__(self) -> None:
        self.uids = {("serviceaccounts", "ns", "sa"): "u1", ("pods", "ns", "p"): "u2"}
        self.clock = FakeClock()
        pem = ECKey.generate_key("P-256").as_pem(private=True)
        self.tokens = Tokens(pem, "https://issuer", self.clock, self.uid_of)

    def uid_of(self, resource: ResourceKey, namespace: str, name: str) -> str | None:
        return self.uids.get((resource.plural, namespace, name))


@pytest.fixture
def world() -> World:
    return World()


def test_issued_token_is_accepted(world: World) -> None:
    token, expires = world.tokens.issue("ns", "sa", "u1", [], 600, Bound("Pod", "p", "u2", ("host-1", "u3")))
    found = world.tokens.check(token)
    assert found.user_name == "system:serviceaccount:ns:sa"
    assert found.extra["authentication.kubernetes.io/pod-name"] == ("p",)
    assert expires == world.clock.now() + 600


@pytest.mark.parametrize("gone", [("serviceaccounts", "ns", "sa"), ("pods", "ns", "p")])
def test_token_dies_with_what_it_is_bound_to(world: World, gone: tuple[str, str, str]) -> None:
    token, _ = world.tokens.issue("ns", "sa", "u1", [], 600, Bound("Pod", "p", "u2"))
    world.tokens.check(token)
    world.uids[gone] = "another"
    with pytest.raises(InvalidToken):
        world.tokens.check(token)


def test_expired_foreign_and_tampered_tokens(world: World) -> None:
    token, _ = world.tokens.issue("ns", "sa", "u1", [], 600)
    with pytest.raises(InvalidToken):
        world.tokens.check(token, ["other"])
    with pytest.raises(InvalidToken):
        world.tokens.check(token[:-4] + "AAAA")
    foreign, _ = World().tokens.issue("ns", "sa", "u1", [], 600)
    with pytest.raises(InvalidToken):
        world.tokens.check(foreign)
    world.clock.time += 700
    with pytest.raises(InvalidToken):
        world.tokens.check(token)


def test_jwks_has_no_private_part(world: World) -> None:
    assert [key for key in world.tokens.jwks()["keys"] if "d" in key] == []


def test_chain_of_credentials(world: World) -> None:
    chain = Authentication(world.tokens)
    assert chain.authenticate(None, None) == ANONYMOUS
    user = chain.authenticate(CertInfo("bob", ("devs",)), "Bearer nonsense")
    assert (user.name, user.groups) == ("bob", ("devs", "system:authenticated"))
    for bad in ("Bearer nonsense", "Basic abc", "Bearer "):
        with pytest.raises(ApiError) as caught:
            chain.authenticate(None, bad)
        assert caught.value.code == 401


class Nobody:
    """An authorizer that allows nothing."""

    def authorize(self, user: User, attributes: object) -> object:
        from controller.api.access import Decision

        return Decision(False)


def test_impersonation_needs_permission() -> None:
    user = User("bob")
    assert impersonated(user, [], Nobody()) is user  # type: ignore[arg-type]
    with pytest.raises(ApiError) as caught:
        impersonated(user, [("impersonate-user", "alice")], Nobody())  # type: ignore[arg-type]
    assert caught.value.code == 403


def test_impersonation_takes_every_group_and_every_value_of_an_extra() -> None:
    headers = [
        ("impersonate-user", "alice"),
        ("impersonate-group", "one"),
        ("impersonate-group", "two"),
        ("impersonate-extra-example.com%2Fscopes", "a"),
        ("impersonate-extra-example.com%2Fscopes", "b"),
    ]
    found = impersonated(User("root", groups=("system:masters",)), headers, MastersAuthorizer())
    assert found.groups == ("one", "two", "system:authenticated")
    assert found.extra == {"example.com/scopes": ("a", "b")}

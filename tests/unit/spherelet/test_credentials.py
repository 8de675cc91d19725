"""Which credentials of a Secret are for which registry."""

import base64
import json
from typing import Any

import pytest

from spherelet.credentials import entry, registry


def _secret(auths: Any, key: str = ".dockerconfigjson") -> dict[str, Any]:
    content = {"auths": auths} if key == ".dockerconfigjson" else auths
    return {"data": {key: base64.b64encode(json.dumps(content).encode()).decode()}}


LOGIN = {"username": "u", "password": "p"}
AUTH = {"auth": base64.b64encode(b"u:p:with:colons").decode()}


@pytest.mark.parametrize(
    ("image", "host"),
    [
        ("busybox", "docker.io"),
        ("library/busybox:1", "docker.io"),
        ("registry.example/app", "registry.example"),
        ("host:5000/app@sha256:00", "host:5000"),
        ("localhost/app", "localhost"),
    ],
)
def test_registry_of_an_image(image: str, host: str) -> None:
    assert registry(image) == host


@pytest.mark.parametrize("name", ["registry.example", "https://registry.example", "http://registry.example/v2/"])
def test_the_entry_of_the_registry(name: str) -> None:
    assert entry(_secret({"other.example": AUTH, name: LOGIN}), "registry.example") == LOGIN
    assert entry(_secret({name: LOGIN}, ".dockercfg"), "registry.example") == LOGIN


def test_docker_hub_has_an_old_name() -> None:
    assert entry(_secret({"https://index.docker.io/v1/": LOGIN}), "docker.io") == LOGIN


def test_a_password_may_have_colons() -> None:
    assert entry(_secret({"r.example": AUTH}), "r.example") == {"username": "u", "password": "p:with:colons"}


def test_nothing_for_another_registry() -> None:
    assert entry(_secret({"other.example": LOGIN}), "registry.example") is None


@pytest.mark.parametrize(
    "secret",
    [
        {},
        {"data": {"password": "eA=="}},
        {"data": {".dockerconfigjson": "%"}},
        {"data": {".dockerconfigjson": base64.b64encode(b"{").decode()}},
        {"data": {".dockerconfigjson": base64.b64encode(b"[]").decode()}},
        _secret([]),
        _secret({"registry.example": "u:p"}),
        _secret({"registry.example": {"auth": "%%%="}}),
    ],
)
def test_another_secret_says_how_to_make_one(secret: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="kubectl create secret docker-registry"):
        entry(secret, "registry.example")

"""What paths mean."""

import pytest

from controller.api.request import parse_target, verb_of


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces", ("", "", "namespaces", "", "")),
        ("/api/v1/namespaces/a", ("", "a", "namespaces", "a", "")),
        ("/api/v1/namespaces/a/finalize", ("", "a", "namespaces", "a", "finalize")),
        ("/api/v1/namespaces/a/pods/p/log", ("", "a", "pods", "p", "log")),
        ("/api/v1/pods", ("", "", "pods", "", "")),
        ("/apis/apps/v1/namespaces/a/deployments/d/scale", ("apps", "a", "deployments", "d", "scale")),
        ("/apis/apps/v1", ("", "", "", "", "")),
        ("/healthz", ("", "", "", "", "")),
    ],
)
def test_targets(path: str, expected: tuple[str, ...]) -> None:
    found = parse_target(path)
    assert (found.group, found.namespace, found.resource, found.name, found.subresource) == expected


@pytest.mark.parametrize(
    ("method", "path", "watching", "verb"),
    [
        ("GET", "/api/v1/pods", False, "list"),
        ("GET", "/api/v1/pods", True, "watch"),
        ("GET", "/api/v1/namespaces/a/pods/p", False, "get"),
        ("DELETE", "/api/v1/namespaces/a/pods", False, "deletecollection"),
        ("DELETE", "/api/v1/namespaces/a/pods/p", False, "delete"),
        ("POST", "/api/v1/namespaces/a/pods/p/exec", False, "create"),
        ("GET", "/api/v1/namespaces/a/pods/p/exec", False, "create"),
        ("GET", "/api/v1/namespaces/a/pods/p/attach", False, "create"),
        ("GET", "/api/v1/namespaces/a/pods/p/portforward", False, "create"),
        ("GET", "/api/v1/namespaces/a/pods/p/log", False, "get"),
        ("GET", "/metrics", False, "get"),
    ],
)
def test_verbs(method: str, path: str, watching: bool, verb: str) -> None:
    assert verb_of(method, parse_target(path), watching) == verb

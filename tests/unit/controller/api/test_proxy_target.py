"""What a proxy request is for."""

from typing import Any

import pytest

from controller.api.proxy_target import (
    Asked,
    Place,
    asked_of,
    direct,
    place_of_pod,
    places_of_service,
    subpath_of,
)
from controller.api.status import ApiError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web", Asked("http", "web", "")),
        ("web:80", Asked("http", "web", "80")),
        ("web:", Asked("http", "web", "")),
        ("https:web:", Asked("https", "web", "")),
        (":web:http", Asked("http", "web", "http")),
    ],
)
def test_names(text: str, expected: Asked) -> None:
    assert asked_of(text, "pod") == expected


@pytest.mark.parametrize("text", ["ftp:web:1", "a:b:c:d", ":80", ""])
def test_wrong_names_are_refused(text: str) -> None:
    with pytest.raises(ApiError, match="invalid pod request") as caught:
        asked_of(text, "pod")
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/v1/namespaces/a/pods/p/proxy", ""),
        ("/api/v1/namespaces/a/pods/p/proxy/", "/"),
        ("/api/v1/namespaces/a//pods/p/proxy/x%2Fy//z/", "/x%2Fy//z/"),
    ],
)
def test_the_rest_of_the_path_stays_as_it_was_sent(path: str, expected: str) -> None:
    assert subpath_of(path, 7) == expected


def pod(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "p"},
        "spec": {"nodeName": "host-1", "containers": [{"name": "a"}], **spec},
        "status": {"podIP": "10.64.0.1"},
    }


def test_a_pods_port_is_the_one_asked_for_or_its_first_or_that_of_the_scheme() -> None:
    assert place_of_pod(pod(), Asked("http", "p", "8080")).port == 8080
    assert place_of_pod(pod(), Asked("http", "p", "")).port == 80
    assert place_of_pod(pod(), Asked("https", "p", "")).port == 443
    declared = pod(containers=[{"name": "a"}, {"name": "b", "ports": [{"containerPort": 7}, {"containerPort": 8}]}])
    assert place_of_pod(declared, Asked("http", "p", "")).port == 7


def test_pods_on_a_hosts_network_are_reached_by_its_address() -> None:
    assert place_of_pod(pod(), Asked("http", "p", "")) == Place("10.64.0.1", 80, "host-1", "p")
    assert place_of_pod(pod(hostNetwork=True), Asked("http", "p", "")) == Place("10.64.0.1", 80, "host-1")


def test_a_pod_without_address_and_a_port_that_is_none_are_refused() -> None:
    for obj, port in (({**pod(), "status": {}}, "80"), (pod(), "http"), (pod(), "0"), (pod(), "65536")):
        with pytest.raises(ApiError) as caught:
            place_of_pod(obj, Asked("http", "p", port))
        assert caught.value.code == 400


SERVICE = {
    "metadata": {"name": "s"},
    "spec": {"ports": [{"name": "web", "port": 80}, {"name": "admin", "port": 81}]},
}


def endpoint(address: str, *, ready: bool | None = None, pod_name: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}
    return {**found, "nodeName": "h", **({"targetRef": {"kind": "Pod", "name": pod_name}} if pod_name else {})}


SLICES = [
    {
        "endpoints": [
            endpoint("10.64.0.1", ready=True, pod_name="p1"),
            endpoint("10.64.0.2", ready=False, pod_name="p2"),
            endpoint("192.0.2.1"),
        ],
        "ports": [{"name": "web", "port": 8080}],
    },
    {"endpoints": [endpoint("10.64.0.3", pod_name="p3")], "ports": [{"name": "admin", "port": 8081}]},
]


def test_a_service_is_any_of_its_ready_endpoints_by_name_or_number_of_the_port() -> None:
    web = [Place("10.64.0.1", 8080, "h", "p1"), Place("192.0.2.1", 8080, "h")]
    assert places_of_service(SERVICE, SLICES, Asked("http", "s", "web")) == web
    assert places_of_service(SERVICE, SLICES, Asked("http", "s", "80")) == web
    assert places_of_service(SERVICE, SLICES, Asked("http", "s", "81")) == [Place("10.64.0.3", 8081, "h", "p3")]


@pytest.mark.parametrize(
    ("port", "words"),
    [("", "no endpoints available"), ("82", "no service port 82"), ("nothing", "no endpoints available")],
)
def test_a_service_without_such_endpoints_is_unavailable(port: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        places_of_service(SERVICE, SLICES, Asked("http", "s", port))
    assert caught.value.code == 503


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "::1", "fe80::1"])
def test_nobody_reaches_this_machines_own_addresses_through_a_proxy(address: str) -> None:
    with pytest.raises(ApiError, match="address not allowed"):
        direct(Place(address, 80))

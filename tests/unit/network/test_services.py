"""Who gets connections to a service, and which names it has."""

from typing import Any

import pytest

from common.messages import DnsName
from controller.network.services import CompiledService, Standing, compile_service
from controller.network.views import ENDPOINT_SLICES, SERVICES, ServiceView, SliceView, view_of
from tests.support.network_objects import a_service, a_slice, an_endpoint

READY = {"ready": True, "serving": True, "terminating": False}
NOT_READY = {"ready": False, "serving": False, "terminating": False}
LEAVING = {"ready": False, "serving": True, "terminating": True}
LEFT = {"ready": False, "serving": False, "terminating": True}


def compiled(endpoints: list[dict[str, Any]], lost: str = "", gone: str = "", **spec: Any) -> CompiledService:
    view = view_of(SERVICES, a_service("red", "web", **spec))
    piece = view_of(ENDPOINT_SLICES, a_slice("red", "web", endpoints))
    assert isinstance(view, ServiceView)
    assert isinstance(piece, SliceView)
    standing = {lost: Standing.HOST_LOST, gone: Standing.POD_GONE, "": Standing.SOUND}
    return compile_service(view, [piece], lambda endpoint: standing.get(endpoint.host, Standing.SOUND))


def backends(service: CompiledService) -> list[str]:
    return [backend.address for backend in service.item.ports[0].backends]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([READY, NOT_READY, LEAVING, LEFT], ["10.64.0.0"]),
        ([NOT_READY, NOT_READY, LEAVING, LEFT], ["10.64.0.2"]),
        ([NOT_READY, NOT_READY, LEFT, LEFT], []),
        ([{}, NOT_READY], ["10.64.0.0"]),
        ([], []),
    ],
)
def test_the_ready_ones_or_else_those_still_serving(conditions: list[dict[str, bool]], expected: list[str]) -> None:
    endpoints = [an_endpoint(f"10.64.0.{number}", **each) for number, each in enumerate(conditions)]
    assert backends(compiled(endpoints)) == expected


def test_a_fallback_is_not_wanted_for_its_own_sake() -> None:
    assert compiled([an_endpoint("10.64.0.1", **LEAVING)]).ready == frozenset()
    assert compiled([an_endpoint("10.64.0.1", **READY)]).ready == {"10.64.0.1"}


def test_a_pod_that_is_published_until_its_end_is_not_held_back_by_that() -> None:
    leaving = an_endpoint("10.64.0.1", **{**LEAVING, "ready": True})
    found = compiled([leaving, an_endpoint("10.64.0.2", **READY)], publishNotReadyAddresses=True)
    assert backends(found) == ["10.64.0.1", "10.64.0.2"]
    assert found.ready == {"10.64.0.2"}


def test_publish_not_ready_takes_all() -> None:
    endpoints = [an_endpoint("10.64.0.1", **NOT_READY), an_endpoint("10.64.0.2", **READY)]
    assert backends(compiled(endpoints, publishNotReadyAddresses=True)) == ["10.64.0.1", "10.64.0.2"]


@pytest.mark.parametrize(
    ("first", "second", "lost", "gone", "expected"),
    [
        (READY, READY, "host-1", "", ["10.64.0.2"]),
        (READY, LEAVING, "host-1", "", ["10.64.0.2"]),
        (READY, NOT_READY, "host-1", "", ["10.64.0.1"]),
        (NOT_READY, NOT_READY, "host-1", "", []),
        (READY, READY, "", "host-1", ["10.64.0.2"]),
        (READY, NOT_READY, "", "host-1", []),
    ],
)
def test_lost_hosts_come_last_and_gone_pods_never(
    first: dict[str, bool], second: dict[str, bool], lost: str, gone: str, expected: list[str]
) -> None:
    endpoints = [an_endpoint("10.64.0.1", "host-1", **first), an_endpoint("10.64.0.2", "host-2", **second)]
    assert backends(compiled(endpoints, lost, gone)) == expected


def test_ports_are_matched_by_name_and_protocol() -> None:
    ports = [{"name": "web", "port": 80, "nodePort": 30080}, {"name": "other", "port": 81}]
    service = compiled([an_endpoint("10.64.0.1", **READY)], ports=ports)
    web, other = service.item.ports
    assert (web.port, web.node_port, web.backends[0].port, web.protocol) == (80, 30080, 8080, "tcp")
    assert other.backends == ()


def test_a_headless_service_names_its_pods_and_balances_nothing() -> None:
    endpoints = [an_endpoint("10.64.0.2", hostname="db-1", **READY), an_endpoint("10.64.0.1", hostname="db-0", **READY)]
    service = compiled(endpoints, clusterIP="None").item
    assert [(port.port, port.backends) for port in service.ports] == [(8080, ())], "for SRV records only"
    assert service.cluster_ip == ""
    assert service.names == (
        DnsName(addresses=("10.64.0.1", "10.64.0.2")),
        DnsName(label="db-0", addresses=("10.64.0.1",)),
        DnsName(label="db-1", addresses=("10.64.0.2",)),
    )


def test_policies_affinity_and_external_name_are_carried() -> None:
    service = compiled(
        [], sessionAffinity="ClientIP", internalTrafficPolicy="Local", externalTrafficPolicy="Local"
    ).item
    assert (service.affinity_s, service.internal_local, service.external_local) == (10800, True, True)
    external = compiled([], type="ExternalName", externalName="db.example", ports=[]).item
    assert (external.external_name, external.cluster_ip, external.names) == ("db.example", "", ())

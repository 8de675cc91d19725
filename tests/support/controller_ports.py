"""What controllers are given, over an API server that runs in the test's own process."""

from prometheus_client import CollectorRegistry

from controller.api.local import LocalClient
from controller.runtime import assembly
from controller.scheduler.binding import Binder
from tests.integration.conftest import ApiServer


def controller_ports(api_server: ApiServer) -> assembly.ControllerPorts:
    """As the daemon wires them, with a metrics registry of their own; every host has forgotten every address."""
    ports = api_server.api.ports
    return assembly.ControllerPorts(
        cache=ports.cache,
        client=lambda user: LocalClient(api_server.api, user),
        acknowledged=lambda: ports.store.acknowledged,
        binder=Binder(ports.cache, ports.store, ports.clock, 28),
        clock=ports.clock,
        ca_pem="PEM",
        pod_cidr="10.64.0.0/12",
        segment_prefix=22,
        block_prefix=28,
        forgotten=lambda revision: True,
        registry=CollectorRegistry(),
    )

"""Local traffic policies: hosts without a ready endpoint fall back on what leaves there."""

import pytest

from common.messages import Backend
from controller.network.services import Standing, compile_service
from controller.network.views import Endpoint, NamedPort, ServicePortView, ServiceView, SliceView


def endpoint(number: int, *, ready: bool) -> Endpoint:
    return Endpoint((f"10.64.0.{number}",), f"host-{number}", "", ready, serving=True, terminating=not ready)


def backends(*endpoints: Endpoint, local: bool) -> tuple[Backend, ...]:
    view = ServiceView(
        namespace="shop",
        name="web",
        type="ClusterIP",
        cluster_ip="10.96.0.1",
        external_name="",
        ports=(ServicePortView("", "tcp", 80, 0),),
        publish_not_ready=False,
        affinity_s=0,
        internal_local=local,
        external_local=False,
    )
    slices = [SliceView("shop", "web-1", "web", (NamedPort("", "tcp", 8080),), endpoints)]
    return compile_service(view, slices, lambda _: Standing.SOUND).item.ports[0].backends


def backend(number: int, *, fallback: bool = False) -> Backend:
    return Backend(address=f"10.64.0.{number}", port=8080, host=f"host-{number}", fallback=fallback)


def test_those_on_their_way_out_serve_when_nobody_is_ready() -> None:
    assert backends(endpoint(1, ready=False), local=False) == (backend(1),)
    assert backends(endpoint(1, ready=False), endpoint(2, ready=True), local=False) == (backend(2),)


def test_a_host_with_a_local_policy_decides_by_itself() -> None:
    both = (endpoint(1, ready=False), endpoint(2, ready=True))
    assert backends(*both, local=True) == (backend(1, fallback=True), backend(2))


@pytest.mark.parametrize("local", [False, True])
def test_nobody_is_nobody(local: bool) -> None:
    assert backends(local=local) == ()

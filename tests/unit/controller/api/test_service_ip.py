"""Service addresses and node ports: unique, in range, kept on update, free again after deletion."""

import ipaddress
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest

from controller.api.access import User
from controller.api.admission import AdmissionRequest
from controller.api.admission.service_ip import ServiceAllocator, candidates
from controller.api.status import ApiError
from controller.kinds.kind import ResourceKey
from controller.kinds.service import SERVICE
from controller.store.cache import Change
from controller.store.entry import make_entry


class FakeCache:
    """Just enough of the cache: a subscription and no objects."""

    def __init__(self) -> None:
        self.callback: Callable[[Change], None] = lambda change: None

    def subscribe(self, resources: Iterable[ResourceKey] | None, callback: Callable[[Change], None]) -> Any:
        self.callback = callback
        return lambda: None

    def list(self, resource: ResourceKey, namespace: str | None = None) -> list[Any]:
        return []

    def tell(self, kind: Any, service: dict[str, Any]) -> None:
        head = {"apiVersion": "v1", "kind": "Service", **service}
        key = f"/sphere/registry/core/services/d/{service['metadata']['name']}"
        entry = make_entry(key, orjson.dumps(head), 1, lambda resource, obj: {})
        self.callback(Change(kind, entry, None, 1))


class FakeClock:
    time = 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds


class World:
    def __init__(self, cidr: str = "10.96.0.0/24") -> None:
        self.cache, self.clock = FakeCache(), FakeClock()
        self.allocator = ServiceAllocator(self.cache, self.clock, cidr)  # type: ignore[arg-type]

    def admit(self, name: str, **spec: Any) -> dict[str, Any]:
        service = {"metadata": {"name": name, "uid": name}, "spec": {"type": "ClusterIP", **spec}}
        request = AdmissionRequest("CREATE", SERVICE, service, None, User("u"), "", False)
        self.allocator.admit(request, lambda *key: None)
        return service


def test_addresses_are_unique_and_in_range() -> None:
    world = World("10.96.0.0/27")
    found = [world.admit(f"s{number}")["spec"]["clusterIP"] for number in range(30)]
    assert len(set(found)) == 30
    assert all(ipaddress.ip_address(each) in ipaddress.ip_network("10.96.0.0/27") for each in found)
    with pytest.raises(ApiError, match="is full"):
        world.admit("one-too-many")


def test_asked_addresses_are_checked() -> None:
    world = World()
    world.admit("a", clusterIP="10.96.0.9")
    for bad in ("10.96.0.9", "10.97.0.1"):
        with pytest.raises(ApiError) as caught:
            world.admit("b", clusterIP=bad)
        assert caught.value.code == 422
    assert world.admit("c", clusterIP="None")["spec"]["clusterIPs"] == ["None"]


def test_external_addresses_are_not_served_and_the_writer_hears_of_it() -> None:
    for given, warned in ((["192.0.2.1"], 1), ([], 0)):
        service = {"metadata": {"name": "a", "uid": "a"}, "spec": {"type": "ClusterIP", "externalIPs": given}}
        request = AdmissionRequest("CREATE", SERVICE, service, None, User("u"), "", False)
        World().allocator.admit(request, lambda *key: None)
        assert len(request.warnings) == warned
        assert service["spec"]["externalIPs"] == given


def test_deleting_frees_and_stored_ones_are_taken() -> None:
    world = World()
    service = world.admit("a", clusterIP="10.96.0.9")
    world.cache.tell("ADDED", service)
    world.clock.time += 1000
    with pytest.raises(ApiError):
        world.admit("b", clusterIP="10.96.0.9")
    world.cache.tell("DELETED", service)
    world.admit("b", clusterIP="10.96.0.9")


def test_a_write_that_never_arrived_frees_its_claim_after_a_while() -> None:
    world = World()
    world.admit("a", clusterIP="10.96.0.9")
    world.clock.time += 31
    world.admit("b", clusterIP="10.96.0.9")


def test_node_ports() -> None:
    world = World()
    ports = [{"port": number, "protocol": "TCP"} for number in (80, 81)]
    made = world.admit("a", type="NodePort", ports=ports)
    numbers = [port["nodePort"] for port in made["spec"]["ports"]]
    assert len(set(numbers)) == 2
    assert all(30000 <= number <= 32767 for number in numbers)
    for bad in (numbers[0], 80):
        with pytest.raises(ApiError):
            world.admit("b", type="NodePort", ports=[{"port": 80, "protocol": "TCP", "nodePort": bad}])


def test_candidates_are_every_address_once() -> None:
    network = ipaddress.IPv4Network("10.96.0.0/24")
    found = list(candidates(network, "seed"))
    assert len(found) == len(set(found)) == 254
    assert ipaddress.ip_address(found[0]) > ipaddress.ip_address("10.96.0.16")

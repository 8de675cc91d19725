"""EndpointSlices and Endpoints follow the pods a service selects."""

from typing import Any

from controller.kinds.kind import Object
from controller.reconcilers.endpoints_mirror import EndpointsReconciler
from controller.reconcilers.endpointslice import EndpointSliceReconciler
from controller.runtime.resources import ENDPOINT_SLICES, ENDPOINTS, PODS, SERVICES
from tests.support.model_registry import ModelRegistry

KEY = "d/web"
SLICES, MIRROR = EndpointSliceReconciler(), EndpointsReconciler()


def service(**spec: Any) -> Object:
    spec = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "web"}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "d"}, "spec": spec}


def pod(name: str, address: str, *, ready: bool = True, port: int = 8080, **metadata: Any) -> Object:
    listed = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "labels": {"app": "web"}, **metadata},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": address, "conditions": listed},
    }


def settle(found: ModelRegistry) -> None:
    found.settle(lambda: [(SLICES, KEY), (MIRROR, KEY)])


def slices(found: ModelRegistry) -> list[Object]:
    return [entry.decode() for entry in found.list(ENDPOINT_SLICES)]


def endpoints(found: ModelRegistry) -> dict[str, Object]:
    return {e["targetRef"]["name"]: e for each in slices(found) for e in each.get("endpoints") or ()}


def test_states_of_endpoints() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service())
    found.put(PODS, pod("up", "10.64.0.1"))
    found.put(PODS, pod("starting", "10.64.0.2", ready=False))
    found.put(PODS, pod("leaving", "10.64.0.3", deletionTimestamp="2026-01-01T00:00:00Z"))
    found.put(PODS, {**pod("done", "10.64.0.4"), "status": {"phase": "Succeeded", "podIP": "10.64.0.4"}})
    settle(found)
    states = {name: each["conditions"] for name, each in endpoints(found).items()}
    assert states == {
        "up": {"ready": True, "serving": True, "terminating": False},
        "starting": {"ready": False, "serving": False, "terminating": False},
        "leaving": {"ready": False, "serving": True, "terminating": True},
    }
    assert slices(found)[0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    mirror = found.list(ENDPOINTS)[0].decode()["subsets"]
    assert [each["ip"] for each in mirror[0]["addresses"]] == ["10.64.0.1"]
    assert [each["ip"] for each in mirror[0]["notReadyAddresses"]] == ["10.64.0.2"]


def test_pods_with_another_port_number_get_a_slice_of_their_own() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service())
    found.put(PODS, pod("old", "10.64.0.1", port=8080))
    found.put(PODS, pod("new", "10.64.0.2", port=9090))
    settle(found)
    assert sorted(each["ports"][0]["port"] for each in slices(found)) == [8080, 9090]


def test_at_most_a_hundred_each_and_members_stay_where_they_are() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service())
    for index in range(150):
        found.put(PODS, pod(f"p{index:03}", f"10.64.0.{index}"))
    settle(found)
    before = {each["metadata"]["name"]: {e["targetRef"]["name"] for e in each["endpoints"]} for each in slices(found)}
    assert sorted(map(len, before.values())) == [50, 100]
    found.remove(PODS, "d", "p000")
    found.put(PODS, pod("a-first", "10.64.1.1"))
    settle(found)
    after = {each["metadata"]["name"]: {e["targetRef"]["name"] for e in each["endpoints"]} for each in slices(found)}
    moved = set().union(*(after[name] - members for name, members in before.items()))
    assert moved == {"a-first"}


def test_publish_not_ready_and_hostnames_of_headless_services() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service(clusterIP="None", publishNotReadyAddresses=True))
    made = pod("p", "10.64.0.1", ready=False)
    made["spec"] |= {"hostname": "db-0", "subdomain": "web"}
    found.put(PODS, made)
    settle(found)
    assert endpoints(found)["p"]["conditions"]["ready"] is True
    assert endpoints(found)["p"]["hostname"] == "db-0"
    assert "service.kubernetes.io/headless" in slices(found)[0]["metadata"]["labels"]


def test_slices_go_with_the_selector_and_foreign_ones_stay() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service())
    found.put(PODS, pod("p", "10.64.0.1"))
    foreign = {"name": "theirs", "namespace": "d", "labels": {"kubernetes.io/service-name": "web"}}
    found.put(ENDPOINT_SLICES, {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": foreign})
    settle(found)
    assert len(slices(found)) == 2
    found.put(SERVICES, service(selector=None))
    settle(found)
    assert [each["metadata"]["name"] for each in slices(found)] == ["theirs"]
    assert not found.list(ENDPOINTS)


def test_a_service_without_pods_has_one_empty_slice() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service())
    settle(found)
    assert [each["endpoints"] for each in slices(found)] == [[]]


def test_a_pod_that_is_named_in_the_service_is_named_in_both_forms() -> None:
    found = ModelRegistry()
    found.put(SERVICES, service())
    for name, subdomain in (("inside", "web"), ("outside", "other")):
        one = pod(name, f"10.64.0.{len(name)}")
        found.put(PODS, {**one, "spec": {**one["spec"], "hostname": name, "subdomain": subdomain}})
    settle(found)
    assert {name: each.get("hostname") for name, each in endpoints(found).items()} == {
        "inside": "inside",
        "outside": None,
    }
    addresses = found.list(ENDPOINTS)[0].decode()["subsets"][0]["addresses"]
    assert {each["targetRef"]["name"]: each.get("hostname") for each in addresses} == {
        "inside": "inside",
        "outside": None,
    }

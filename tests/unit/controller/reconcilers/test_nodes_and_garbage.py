"""Node lifecycle, garbage collection, namespaces, segments and ports, each on a model registry."""

from collections.abc import Callable
from typing import Any

from common.clock import rfc3339
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import conditions
from controller.reconcilers.garbage import GarbageReconciler
from controller.reconcilers.namespace import NamespaceReconciler
from controller.reconcilers.node_lifecycle import LEASE_NAMESPACE, NOT_READY, UNREACHABLE, NodeLifecycleReconciler
from controller.reconcilers.pod_garbage import FINISHED, PodGarbageReconciler
from controller.reconcilers.port_release import PortReleaseReconciler
from controller.reconcilers.segment import SegmentReconciler
from controller.runtime.resources import (
    ADDRESS_BLOCKS,
    CONFIG_MAPS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    PORTS,
    SEGMENTS,
)
from tests.support.model_registry import ModelRegistry

GRACE_S = 40.0


def thing(kind: str, name: str, namespace: str = "", version: str = "v1", **rest: Any) -> Object:
    meta: Object = {"name": name, **({"namespace": namespace} if namespace else {}), **rest.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **rest}


def ready(found: ModelRegistry) -> Object:
    return {"type": "Ready", "status": "True", "lastTransitionTime": rfc3339(found.now)}


def lease(found: ModelRegistry, name: str) -> None:
    renewed = {"renewTime": rfc3339(found.now)}
    found.put(LEASES, thing("Lease", name, LEASE_NAMESPACE, "coordination.k8s.io/v1", spec=renewed))


def _since(moment: float) -> Callable[[], float]:
    return lambda: moment


def node_world() -> tuple[ModelRegistry, NodeLifecycleReconciler]:
    found = ModelRegistry()
    for name in ("n1", "n2"):
        found.put(NODES, thing("Node", name, spec={}, status={"conditions": [ready(found)]}))
        lease(found, name)
    tolerated = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    tolerations = [{"key": key, **tolerated} for key in (NOT_READY, UNREACHABLE)]
    spec = {"nodeName": "n1", "containers": [], "tolerations": tolerations}
    found.put(PODS, thing("Pod", "p", "d", spec=spec, status={"phase": "Running", "conditions": [ready(found)]}))
    return found, NodeLifecycleReconciler(GRACE_S, _since(found.now))


def node(found: ModelRegistry, name: str = "n1") -> Object:
    return found.list(NODES)[int(name[1]) - 1].decode()


def test_a_silent_host_is_tainted_and_its_pods_leave_in_time() -> None:
    found, reconciler = node_world()
    assert found.plan(reconciler, "/n1").writes == ()
    assert found.plan(reconciler, "/n1").again_s == GRACE_S
    found.now += GRACE_S + 1
    lease(found, "n2")
    found.settle(lambda: [(reconciler, "/n1"), (reconciler, "/n2")])
    assert conditions.find(node(found)["status"]["conditions"], "Ready") is not None
    assert conditions.find(node(found)["status"]["conditions"], "Ready")["status"] == "Unknown"  # type: ignore[index]
    assert {(t["key"], t["effect"]) for t in node(found)["spec"]["taints"]} == {
        (UNREACHABLE, "NoSchedule"),
        (UNREACHABLE, "NoExecute"),
    }
    assert "taints" not in node(found, "n2")["spec"]
    pod = found.list(PODS)[0].decode()
    assert not conditions.is_true(pod["status"]["conditions"], "Ready")
    assert found.plan(reconciler, "/n1").again_s == 300
    found.now += 300
    lease(found, "n2")
    found.settle(lambda: [(reconciler, "/n1")])
    assert not found.list(PODS)


def test_a_host_that_says_it_is_not_ready_goes_on_speaking_for_its_pods() -> None:
    found, reconciler = node_world()
    unready = {**ready(found), "status": "False"}
    found.put(NODES, {**node(found), "status": {"conditions": [unready]}})
    found.settle(lambda: [(reconciler, "/n1")])
    assert {each["key"] for each in node(found)["spec"]["taints"]} == {NOT_READY}
    assert conditions.is_true(found.list(PODS)[0].decode()["status"]["conditions"], "Ready")


def test_a_host_that_comes_back_loses_its_taints() -> None:
    found, reconciler = node_world()
    found.now += GRACE_S + 1
    lease(found, "n2")
    found.settle(lambda: [(reconciler, "/n1")])
    lease(found, "n1")
    found.put(NODES, {**node(found), "status": {"conditions": [ready(found)]}})
    found.settle(lambda: [(reconciler, "/n1")])
    assert node(found)["spec"]["taints"] == []
    assert len(found.list(PODS)) == 1


def test_nobody_is_called_dead_for_a_pause_of_ours() -> None:
    found, _ = node_world()
    found.now += 1000
    reconciler = NodeLifecycleReconciler(GRACE_S, observing_since=_since(found.now))
    assert found.plan(reconciler, "/n1").writes == ()
    found.now += GRACE_S + 1
    assert found.plan(reconciler, "/n1").writes == (), "all are silent: more likely our fault"
    found.now += GRACE_S
    assert found.plan(reconciler, "/n1").writes


def test_tolerance_is_timed_from_when_pod_and_taint_met() -> None:
    found, reconciler = node_world()
    key = "example.com/maintenance"
    found.put(NODES, {**node(found), "spec": {"taints": [{"key": key, "effect": "NoExecute"}]}})  # as kubectl does

    def put(name: str, seconds: int | None) -> None:
        wanted = {"key": key, "operator": "Exists", **({} if seconds is None else {"tolerationSeconds": seconds})}
        bound = {"type": "PodScheduled", "status": "True", "lastTransitionTime": rfc3339(found.now)}
        spec = {"nodeName": "n1", "containers": [], "tolerations": [wanted]}
        found.put(PODS, thing("Pod", name, "d", spec=spec, status={"phase": "Running", "conditions": [bound]}))

    def left() -> list[str]:
        for name in ("n1", "n2"):
            lease(found, name)
        found.settle(lambda: [(reconciler, "/n1")])
        return sorted(each.name for each in found.list(PODS))

    put("brief", 5)
    put("long", 20)
    put("always", None)
    assert left() == ["always", "brief", "long"], "p tolerates none of it"
    assert node(found)["spec"]["taints"][0]["timeAdded"] == rfc3339(found.now)
    found.now += 6
    assert left() == ["always", "long"]
    found.now += 10
    put("late", 5)
    assert left() == ["always", "late", "long"]
    found.now += 6
    assert left() == ["always"]


def test_a_cordoned_node_is_tainted() -> None:
    found, reconciler = node_world()
    found.put(NODES, {**node(found), "spec": {"unschedulable": True}})
    found.settle(lambda: [(reconciler, "/n1")])
    assert [t["key"] for t in node(found)["spec"]["taints"]] == ["node.kubernetes.io/unschedulable"]


def test_pods_of_a_deleted_host_go_after_a_while() -> None:
    found, _ = node_world()
    reconciler = PodGarbageReconciler(10)
    found.remove(NODES, "", "n1")
    found.run(reconciler, "/n1")
    assert len(found.list(PODS)) == 1
    assert found.plan(reconciler, "/n1").again_s == 40
    found.now += 40
    found.run(reconciler, "/n1")
    assert found.list(PODS)[0].fields["status.phase"] == "Failed"
    found.run(reconciler, "/n1")
    assert not found.list(PODS)


def test_pods_that_must_stop_on_a_host_out_of_service_are_let_go() -> None:
    found, _ = node_world()
    reconciler = PodGarbageReconciler(10)
    ending = found.list(PODS)[0].decode()
    ending["metadata"] |= {"name": "ending", "uid": "u2", "deletionTimestamp": rfc3339(found.now)}
    found.put(PODS, ending)
    taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
    found.put(NODES, {**node(found), "spec": {"taints": [taint]}})
    assert not found.plan(reconciler, "/n1").writes, "the host is ready: it says itself what has stopped"
    found.put(NODES, {**node(found), "status": {"conditions": []}})
    found.settle(lambda: [(reconciler, "/n1")])
    assert [entry.name for entry in found.list(PODS)] == ["p"]


def test_only_the_newest_finished_pods_stay() -> None:
    found = ModelRegistry()
    for index in range(4):
        found.now += 1
        found.put(PODS, thing("Pod", f"p{index}", "d", spec={}, status={"phase": "Succeeded"}))
    found.run(PodGarbageReconciler(1), FINISHED)
    assert [entry.name for entry in found.list(PODS)] == ["p3"]


def owned_by(uid: str, *, block: bool = True) -> Object:
    return {"uid": uid, "name": "o", "kind": "ConfigMap", "apiVersion": "v1", "blockOwnerDeletion": block}


def collect(found: ModelRegistry) -> None:
    reconciler = GarbageReconciler()
    found.settle(lambda: [(reconciler, entry.uid) for entry in found.list(CONFIG_MAPS)])


def config_map(found: ModelRegistry, name: str, *owner_uids: str, **metadata: Any) -> str:
    if owner_uids:
        metadata["ownerReferences"] = [owned_by(uid) for uid in owner_uids]
    return str(found.put(CONFIG_MAPS, thing("ConfigMap", name, "d", metadata=metadata))["metadata"]["uid"])


def test_dependents_follow_their_last_owner() -> None:
    found = ModelRegistry()
    first, second = config_map(found, "a"), config_map(found, "b")
    child = config_map(found, "child", first, second)
    config_map(found, "grandchild", child)
    collect(found)
    assert len(found.list(CONFIG_MAPS)) == 4
    found.remove(CONFIG_MAPS, "d", "a")
    collect(found)
    assert [entry.name for entry in found.list(CONFIG_MAPS)] == ["b", "child", "grandchild"]
    found.remove(CONFIG_MAPS, "d", "b")
    collect(found)
    assert not found.list(CONFIG_MAPS)


def test_foreground_waits_for_dependents() -> None:
    found = ModelRegistry()
    gone = {"deletionTimestamp": rfc3339(found.now), "finalizers": ["foregroundDeletion"]}
    owner = config_map(found, "owner", **gone)
    config_map(found, "held", owner, finalizers=["example.com/hold"])
    collect(found)
    assert [entry.name for entry in found.list(CONFIG_MAPS)] == ["held", "owner"]
    held = found.list(CONFIG_MAPS)[0].decode()
    assert "deletionTimestamp" in held["metadata"]
    found.remove(CONFIG_MAPS, "d", "held")
    collect(found)
    assert not found.list(CONFIG_MAPS)


def test_a_circle_of_owners_does_not_wait_for_itself() -> None:
    found = ModelRegistry()
    uids = [config_map(found, name) for name in "abcd"]
    for index, name in enumerate("abcd"):
        config_map(found, name, uids[index - 1], uid=uids[index])
    config_map(found, "held", uids[2], finalizers=["example.com/hold"])
    first = found.list(CONFIG_MAPS)[0].decode()
    first["metadata"] |= {"deletionTimestamp": rfc3339(found.now), "finalizers": ["foregroundDeletion"]}
    found.put(CONFIG_MAPS, first)
    collect(found)
    assert [entry.name for entry in found.list(CONFIG_MAPS)] == ["b", "c", "held"], "the rest is waited for"
    found.remove(CONFIG_MAPS, "d", "held")
    collect(found)
    assert not found.list(CONFIG_MAPS)


def test_orphans_stay_without_the_reference() -> None:
    found = ModelRegistry()
    owner = config_map(found, "owner", deletionTimestamp=rfc3339(found.now), finalizers=["orphan"])
    config_map(found, "child", owner)
    collect(found)
    assert [(entry.name, entry.owners) for entry in found.list(CONFIG_MAPS)] == [("child", ())]


def test_a_namespace_is_emptied_and_says_what_holds_it() -> None:
    found = ModelRegistry()
    gone = {"deletionTimestamp": rfc3339(found.now)}
    found.put(NAMESPACES, thing("Namespace", "d", metadata=gone, spec={"finalizers": ["kubernetes"]}, status={}))
    config_map(found, "free")
    config_map(found, "held", finalizers=["example.com/hold"])
    resources: list[ResourceKey] = [CONFIG_MAPS, PODS]
    reconciler = NamespaceReconciler(lambda: resources)
    found.settle(lambda: [(reconciler, "/d")])
    listed = found.list(NAMESPACES)[0].decode()["status"]["conditions"]
    assert "configmaps. has 1 resource instances" in str(conditions.find(listed, "NamespaceContentRemaining"))
    assert "example.com/hold in 1" in str(conditions.find(listed, "NamespaceFinalizersRemaining"))
    found.remove(CONFIG_MAPS, "d", "held")
    found.settle(lambda: [(reconciler, "/d")])
    assert not found.list(NAMESPACES)


def test_what_pods_live_on_stays_until_they_are_gone() -> None:
    found = ModelRegistry()
    gone = {"deletionTimestamp": rfc3339(found.now)}
    found.put(NAMESPACES, thing("Namespace", "d", metadata=gone, spec={"finalizers": ["kubernetes"]}, status={}))
    config_map(found, "free")
    found.put(PODS, thing("Pod", "held", "d", metadata={"finalizers": ["example.com/hold"]}, spec={}))
    reconciler = NamespaceReconciler(lambda: [CONFIG_MAPS, PODS])
    found.settle(lambda: [(reconciler, "/d")])
    assert "deletionTimestamp" in found.list(PODS)[0].decode()["metadata"]
    assert "deletionTimestamp" not in found.list(CONFIG_MAPS)[0].decode()["metadata"]
    listed = found.list(NAMESPACES)[0].decode()["status"]["conditions"]
    assert not conditions.is_true(listed, "NamespaceDeletionContentFailure")
    found.remove(PODS, "d", "held")
    found.settle(lambda: [(reconciler, "/d")])
    assert not found.list(NAMESPACES)


def test_segments_are_distinct_grow_and_go_last() -> None:
    found = ModelRegistry()
    reconciler = SegmentReconciler("10.64.0.0/20", 22, 28)
    for name in ("a", "b"):
        found.put(NAMESPACES, thing("Namespace", name))
    found.settle(lambda: [(reconciler, "segments")])
    specs = [entry.decode()["spec"] for entry in found.list(SEGMENTS)]
    assert [spec["subnets"] for spec in specs] == [["10.64.0.0/22"], ["10.64.4.0/22"]]
    assert [spec["vni"] for spec in specs] == [4096, 4097]
    for index in range(62):
        block = {"cidr": f"10.64.{index // 16}.{index % 16 * 16}/28", "segment": "a", "host": "h"}
        found.put(ADDRESS_BLOCKS, thing("AddressBlock", f"block-{index}", spec=block))
    found.settle(lambda: [(reconciler, "segments")])
    assert found.list(SEGMENTS)[0].decode()["spec"]["subnets"] == ["10.64.0.0/22", "10.64.8.0/22"]
    found.put(PORTS, thing("Port", "10-64-0-1", "a", spec={"podUID": "x"}))
    found.remove(NAMESPACES, "", "a")
    found.settle(lambda: [(reconciler, "segments")])
    assert len(found.list(SEGMENTS)) == 2
    found.remove(PORTS, "a", "10-64-0-1")
    found.settle(lambda: [(reconciler, "segments")])
    assert [entry.name for entry in found.list(SEGMENTS)] == ["b"]
    assert not found.list(ADDRESS_BLOCKS)


def test_an_address_rests_until_every_host_forgot_it() -> None:
    found = ModelRegistry()
    asked: list[int] = []
    answer = False

    def forgotten(port: Object) -> bool:
        asked.append(port["status"]["releaseRevision"])
        return answer

    reconciler = PortReleaseReconciler(forgotten)
    uid = found.put(PODS, thing("Pod", "p", "d", spec={}))["metadata"]["uid"]
    found.put(PORTS, thing("Port", "10-64-0-1", "d", spec={"podUID": uid}, status={"phase": "Bound"}))
    assert found.plan(reconciler, "d/10-64-0-1").writes == ()
    found.remove(PODS, "d", "p")
    gone_at = found.revision
    found.settle(lambda: [(reconciler, "d/10-64-0-1")])
    assert found.list(PORTS)[0].decode()["status"]["phase"] == "Quarantined"
    assert asked[-1] >= gone_at
    answer = True
    found.settle(lambda: [(reconciler, "d/10-64-0-1")])
    assert not found.list(PORTS)

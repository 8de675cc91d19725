"""What controllers and scheduler promise beyond Deployments: by kubectl, on real hosts."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.manifests import container, pod, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]
Object = dict[str, Any]
RESOURCE = "example.org/seat"


def names(kubectl: Kubectl, label: str) -> set[str]:
    """Pods that are to stay."""
    found = kubectl.get("pods", "-l", label)["items"]
    return {each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]}


def replication_controller(name: str, replicas: int) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod(name)["spec"]}
    return {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "template": template},
    }


def test_a_replication_controller_scales_is_exposed_and_adopts_what_it_left(
    kubectl: Kubectl, eventually: Eventually
) -> None:
    kubectl.apply(replication_controller("old", 1))
    kubectl("scale", "rc/old", "--replicas=2", "--timeout=30s")
    eventually(lambda: kubectl.get("rc", "old")["status"].get("readyReplicas") == 2)
    kubectl("expose", "rc/old", "--port=80")
    assert kubectl.get("service", "old")["spec"]["selector"] == {"app": "old"}
    described = kubectl("describe", "rc/old")
    assert "2 current / 2 desired" in described
    assert "SuccessfulCreate" in described
    before = names(kubectl, "app=old")
    kubectl("delete", "rc/old", "--cascade=orphan")
    kubectl.apply(replication_controller("old", 2))
    eventually(lambda: kubectl.get("rc", "old")["status"].get("readyReplicas") == 2)
    assert names(kubectl, "app=old") == before
    kubectl("label", "pod", sorted(before)[0], "app=stray", "--overwrite")
    eventually(lambda: len(names(kubectl, "app=old")) == 2)
    kubectl("delete", "rc/old")
    eventually(lambda: not names(kubectl, "app=old"))
    assert names(kubectl, "app=stray") == {sorted(before)[0]}


def test_an_eviction_is_no_failure_where_the_jobs_policy_says_so(kubectl: Kubectl, eventually: Eventually) -> None:
    ignored = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    template = pod("work", shell("test -f /done/it && exit 0; trap 'exit 1' TERM; sleep 1d & wait"))["spec"]
    template |= {"restartPolicy": "Never", "volumes": [{"name": "done", "configMap": {"name": "it", "optional": True}}]}
    template["containers"][0]["volumeMounts"] = [{"name": "done", "mountPath": "/done"}]
    spec = {"backoffLimit": 0, "podFailurePolicy": {"rules": [ignored]}, "template": {"spec": template}}
    kubectl.apply({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "work"}, "spec": spec})
    eventually(lambda: kubectl.get("job", "work")["status"].get("ready") == 1)
    (name,) = names(kubectl, "job-name=work")
    kubectl("create", "configmap", "it", "--from-literal=it=done")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{name}/eviction"
    kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    kubectl("wait", "job/work", "--for=condition=Complete", "--timeout=40s")
    assert "failed" not in kubectl.get("job", "work")["status"]


def test_a_stateful_set_makes_its_pod_again_until_the_host_takes_it(kubectl: Kubectl, eventually: Eventually) -> None:
    node = kubectl.get("nodes")["items"][0]["metadata"]["name"]
    taken = container(ports=[{"containerPort": 21017, "hostPort": 21017}])
    kubectl.apply(pod("first", taken, nodeName=node))
    kubectl("wait", "pod/first", "--for=condition=Ready", "--timeout=30s")
    labels = {"app": "second"}
    template = {"metadata": {"labels": labels}, "spec": pod("second", taken, nodeName=node)["spec"]}
    spec = {"serviceName": "second", "selector": {"matchLabels": labels}, "template": template}
    kubectl.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "second"}, "spec": spec})

    def refusals() -> int:
        events = kubectl.get("events", "--field-selector", "reason=RecreatingFailedPod")["items"]
        return sum(each.get("count") or 1 for each in events)

    eventually(lambda: refusals() >= 1)
    kubectl("delete", "pod/first", "--now")
    kubectl("rollout", "status", "statefulset/second", "--timeout=40s")


@pytest.fixture
def seats(kubectl: Kubectl) -> Iterator[str]:
    """The node that has two of what no other has; gone afterwards, as are the priority classes of this test."""
    node = kubectl.get("nodes")["items"][0]["metadata"]["name"]

    def give(amount: str | None) -> None:
        change = {"status": {"capacity": {RESOURCE: amount}, "allocatable": {RESOURCE: amount}}}
        kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(change))

    give("2")
    try:
        yield node
    finally:
        give(None)
        kubectl.attempt("delete", "priorityclass", "t-low", "t-high")


def test_the_least_important_gives_its_place_on_the_one_node_that_can_help(
    kubectl: Kubectl, eventually: Eventually, seats: str
) -> None:
    def seated(name: str, priority: str) -> Object:
        one = {RESOURCE: "1"}
        return pod(name, container(resources={"requests": one, "limits": one}), priorityClassName=priority)

    kubectl("create", "priorityclass", "t-low", "--value=10")
    kubectl("create", "priorityclass", "t-high", "--value=1000")
    kubectl.apply(seated("low", "t-low"), seated("high", "t-high"))
    kubectl("wait", "pod/low", "pod/high", "--for=condition=Ready", "--timeout=30s")
    refused = kubectl.attempt("patch", "priorityclass", "t-low", "--type=merge", "-p", '{"value": 2000}')
    assert "may not be changed" in refused.stderr
    kubectl.apply(seated("newcomer", "t-high"))
    kubectl("wait", "pod/newcomer", "--for=condition=Ready", "--timeout=30s")
    assert kubectl.get("pod", "newcomer")["spec"]["nodeName"] == seats
    eventually(lambda: names(kubectl, "app in (low,high,newcomer)") == {"high", "newcomer"})

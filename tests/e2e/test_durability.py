"""etcd holds the state: what dies on the control machine comes back, and nothing was lost or restarted."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.manifests import config_map, deployment, pod, service, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]
CONTROL = "control"


def fingerprint(kubectl: Kubectl) -> dict[str, Any]:
    """Everything that a restart of the control plane must leave as it is."""
    pods = kubectl.get("pods")["items"]
    return {
        "objects": sorted(
            (each["kind"], each["metadata"]["name"], each["metadata"]["uid"])
            for each in kubectl.get("pods,deployments,replicasets,services,configmaps")["items"]
        ),
        "restarts": {
            each["metadata"]["name"]: [
                (one["restartCount"], one["containerID"]) for one in each["status"]["containerStatuses"]
            ]
            for each in pods
        },
        "addresses": {each["metadata"]["name"]: each["status"]["podIP"] for each in pods},
        "services": {each["metadata"]["name"]: each["spec"]["clusterIP"] for each in kubectl.get("services")["items"]},
    }


@pytest.mark.parametrize("component", ["sphere-controller", "etcd"])
def test_a_killed_control_plane_loses_and_restarts_nothing(
    cluster: Any, kubectl: Kubectl, eventually: Eventually, component: str
) -> None:
    serve = shell("mkdir /w; echo ok > /w/index.html; exec httpd -f -p 8080 -h /w")
    kubectl.apply(deployment("web", serve, replicas=3), service("web", "web", 80, 8080), config_map("c", a="b"))
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    before = fingerprint(kubectl)
    cluster.kill(CONTROL, component)
    eventually(lambda: kubectl.attempt("get", "configmap", "c", timeout_s=5).returncode == 0, 8.0)
    assert fingerprint(kubectl) == before
    kubectl("scale", "deployment/web", "--replicas=4")
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    after = fingerprint(kubectl)
    assert {name: after["restarts"][name] for name in before["restarts"]} == before["restarts"]


def test_an_acknowledged_write_survives_a_kill_right_after(
    cluster: Any, kubectl: Kubectl, eventually: Eventually
) -> None:
    for round_number in range(3):
        names = [f"c{round_number}-{number}" for number in range(5)]
        for name in names:
            kubectl("create", "configmap", name, f"--from-literal=name={name}")
        cluster.kill(CONTROL, "sphere-controller" if round_number < 2 else "etcd")
        eventually(lambda: kubectl.attempt("get", "configmaps", timeout_s=5).returncode == 0, 8.0)
        found = {each["metadata"]["name"]: each.get("data") for each in kubectl.get("configmaps")["items"]}
        assert all(found.get(name) == {"name": name} for name in names)


def test_a_rollout_goes_on_after_the_controller_died_in_it(
    cluster: Any, kubectl: Kubectl, eventually: Eventually
) -> None:
    kubectl.apply(deployment("app", replicas=4, minReadySeconds=1))
    kubectl("rollout", "status", "deployment/app", "--timeout=30s")
    kubectl("rollout", "restart", "deployment/app")
    eventually(lambda: len(kubectl.get("replicasets")["items"]) == 2)  # minReadySeconds keeps it in the middle
    cluster.kill(CONTROL, "sphere-controller")
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if kubectl.attempt("rollout", "status", "deployment/app", "--timeout=30s", timeout_s=40).returncode == 0:
            break
    sets = kubectl.get("replicasets")["items"]
    assert sorted(each["spec"]["replicas"] for each in sets) == [0, 4]
    pods = [each for each in kubectl.get("pods")["items"] if "deletionTimestamp" not in each["metadata"]]
    assert len(pods) == 4


def test_watches_and_streams_outlive_the_controller(cluster: Any, kubectl: Kubectl, eventually: Eventually) -> None:
    """A watch is taken up again where it was; a pod is deleted although nobody told its host while it was away."""
    kubectl.apply(pod("stays"), pod("goes"))
    kubectl("wait", "pod/stays", "pod/goes", "--for=condition=Ready", "--timeout=30s")
    words = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "-n", kubectl.namespace]
    waiting = subprocess.Popen([*words, "wait", "pod/goes", "--for=delete", "--timeout=30s"], stdout=subprocess.PIPE)
    try:
        cluster.kill(CONTROL, "sphere-controller")
        eventually(lambda: kubectl.attempt("delete", "pod", "goes", "--wait=false", timeout_s=5).returncode == 0, 8.0)
        eventually(lambda: kubectl.attempt("get", "pod", "goes").returncode != 0)
        assert waiting.wait(30) in (0, 1)
    finally:
        waiting.kill()
        waiting.wait()
        assert waiting.stdout is not None
        waiting.stdout.close()
    stays = json.loads(kubectl("get", "pod", "stays", "-o", "json"))
    assert stays["status"]["containerStatuses"][0]["restartCount"] == 0

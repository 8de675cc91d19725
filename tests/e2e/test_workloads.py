"""Deployments, ReplicaSets and Services as their users drive them."""

import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.manifests import container, deployment, pod, service, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]
QUICK = {"periodSeconds": 1, "failureThreshold": 3}


def images(kubectl: Kubectl, name: str) -> set[str]:
    pods = kubectl.get("pods", "-l", f"app={name}")["items"]
    return {each["spec"]["containers"][0]["image"] for each in pods if "deletionTimestamp" not in each["metadata"]}


def rolled_out(kubectl: Kubectl, name: str, timeout_s: int = 40) -> str:
    said: str = kubectl("rollout", "status", f"deployment/{name}", f"--timeout={timeout_s}s")
    return said


def version(number: int) -> dict[str, Any]:
    return container(env=[{"name": "VERSION", "value": str(number)}])


def running(kubectl: Kubectl, name: str) -> set[str]:
    """Versions of the pods that are to stay."""
    pods = kubectl.get("pods", "-l", f"app={name}")["items"]
    return {
        each["spec"]["containers"][0]["env"][0]["value"] for each in pods if "deletionTimestamp" not in each["metadata"]
    }


def test_rolling_update_history_undo(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("app", version(1), replicas=3))
    assert "successfully rolled out" in rolled_out(kubectl, "app")
    kubectl.apply(deployment("app", version(2), replicas=3))
    rolled_out(kubectl, "app")
    eventually(lambda: running(kubectl, "app") == {"2"})
    kubectl("annotate", "deployment/app", "kubernetes.io/change-cause=second version")
    kubectl("rollout", "undo", "deployment/app")
    rolled_out(kubectl, "app")
    eventually(lambda: running(kubectl, "app") == {"1"})
    history = kubectl("rollout", "history", "deployment/app")
    assert re.findall(r"^(\d+) ", history, re.MULTILINE) == ["2", "3"]
    assert "second version" in history
    assert "VERSION:\t2" in kubectl("rollout", "history", "deployment/app", "--revision=2")
    kubectl("rollout", "undo", "deployment/app", "--to-revision=2")
    rolled_out(kubectl, "app")
    eventually(lambda: running(kubectl, "app") == {"2"})
    refused = kubectl.attempt("rollout", "undo", "deployment/app", "--to-revision=99")
    assert "unable to find specified revision 99" in refused.stderr


def test_pause_gathers_changes_and_resume_rolls_them_out_once(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("app", version(1)))
    rolled_out(kubectl, "app")
    kubectl("rollout", "pause", "deployment/app")
    kubectl("set", "env", "deployment/app", "VERSION=2")
    kubectl("set", "resources", "deployment/app", "--requests=cpu=1m")
    assert "timed out" in kubectl.attempt("rollout", "status", "deployment/app", "--timeout=1s").stderr
    assert len(kubectl.get("rs", "-l", "app=app")["items"]) == 1
    kubectl("rollout", "resume", "deployment/app")
    rolled_out(kubectl, "app")
    assert len(kubectl.get("rs", "-l", "app=app")["items"]) == 2
    before = kubectl("get", "pods", "-o", "name")
    kubectl("rollout", "restart", "deployment/app")
    rolled_out(kubectl, "app")
    assert kubectl("get", "pods", "-o", "name", "--sort-by=.metadata.creationTimestamp").split()[-1] not in before


def test_a_bad_image_stops_the_rollout_and_keeps_what_works(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("app", version(1), replicas=3, progressDeadlineSeconds=2, minReadySeconds=1))
    rolled_out(kubectl, "app")
    kubectl("set", "image", "deployment/app", "c=docker.io/library/no-such-image:1")
    refused = kubectl.attempt("rollout", "status", "deployment/app", "--timeout=30s")
    assert "exceeded its progress deadline" in refused.stderr
    status = kubectl.get("deployment", "app")["status"]
    assert status["availableReplicas"] >= 3
    progressing = next(each for each in status["conditions"] if each["type"] == "Progressing")
    assert (progressing["status"], progressing["reason"]) == ("False", "ProgressDeadlineExceeded")
    kubectl("rollout", "undo", "deployment/app")
    rolled_out(kubectl, "app")
    eventually(lambda: images(kubectl, "app") == {"busybox"})


def test_recreate_never_runs_two_versions(kubectl: Kubectl) -> None:
    kubectl.apply(deployment("app", version(1), replicas=2, strategy={"type": "Recreate"}))
    rolled_out(kubectl, "app")
    kubectl.apply(deployment("app", version(2), replicas=2, strategy={"type": "Recreate"}))
    seen = set()
    deadline = time.monotonic() + 20
    while (now := frozenset(running(kubectl, "app"))) != {"2"} and time.monotonic() < deadline:
        seen.add(now)
    assert frozenset({"1", "2"}) not in seen
    rolled_out(kubectl, "app")


def test_scaling_and_replacing_pods(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("app", replicas=1))
    rolled_out(kubectl, "app")
    kubectl("scale", "deployment/app", "--replicas=5")
    rolled_out(kubectl, "app")
    assert len({each["spec"]["nodeName"] for each in kubectl.get("pods")["items"]}) == 3
    refused = kubectl.attempt("scale", "deployment/app", "--replicas=1", "--current-replicas=9")
    assert "Expected replicas to be 9, was 5" in refused.stderr
    victim = kubectl("get", "pods", "-o", "name").split()[0]
    kubectl("delete", victim)
    eventually(lambda: kubectl.get("deployment", "app")["status"].get("readyReplicas") == 5)
    assert victim not in kubectl("get", "pods", "-o", "name")
    kubectl("scale", "deployment/app", "--replicas=0")
    eventually(lambda: kubectl("get", "pods", "-o", "name") == "")


def test_a_replica_set_adopts_and_releases(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("orphan", labels={"app": "set"}))
    template = {"metadata": {"labels": {"app": "set"}}, "spec": pod("x")["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "set"}}, "template": template}
    kubectl.apply({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "set"}, "spec": spec})
    eventually(lambda: kubectl.get("rs", "set")["status"].get("readyReplicas") == 2)
    names = kubectl("get", "pods", "-l", "app=set", "-o", "name").split()
    assert "pod/orphan" in names
    assert kubectl.get("pod", "orphan")["metadata"]["ownerReferences"][0]["name"] == "set"
    kubectl("label", "pod", "orphan", "app=free", "--overwrite")
    eventually(lambda: len(kubectl("get", "pods", "-l", "app=set", "-o", "name").split()) == 2)
    eventually(lambda: not kubectl.get("pod", "orphan")["metadata"].get("ownerReferences"))


def test_a_service_follows_readiness_and_is_reached_by_name(kubectl: Kubectl, eventually: Eventually) -> None:
    web = shell(
        "mkdir /w; hostname > /w/index.html; exec httpd -f -p 8080 -h /w",
        readinessProbe={"exec": {"command": ["test", "!", "-e", "/not-ready"]}, **QUICK, "failureThreshold": 1},
    )
    kubectl.apply(deployment("web", web, replicas=2), service("web", "web", 80, 8080), pod("visitor"))
    rolled_out(kubectl, "web")
    kubectl("wait", "pod/visitor", "--for=condition=Ready", "--timeout=30s")

    def endpoints() -> set[str]:
        slices = kubectl.get("endpointslices", "-l", "kubernetes.io/service-name=web")["items"]
        found = [each for one in slices for each in one.get("endpoints") or ()]
        return {each["targetRef"]["name"] for each in found if each["conditions"]["ready"]}

    def visit(url: str = "http://web/") -> str:
        return str(kubectl("exec", "visitor", "--", "timeout", "5", "wget", "-q", "-O", "-", url)).strip()

    names = eventually(lambda: (found := endpoints()) and len(found) == 2 and found)
    kubectl("wait", "service/web", "--for=condition=Realized", "--timeout=20s")
    assert {visit() for _ in range(20)} == names
    out = sorted(names)[0]
    kubectl("exec", out, "--", "touch", "/not-ready")
    eventually(lambda: endpoints() == names - {out})
    eventually(lambda: {visit() for _ in range(6)} == names - {out})
    kubectl("exec", out, "--", "rm", "/not-ready")
    eventually(lambda: endpoints() == names)


def test_a_rollout_under_traffic_drops_no_request(kubectl: Kubectl) -> None:
    serve = "mkdir -p /w; echo ok > /w/index.html; exec httpd -f -p 8080 -h /w"
    probe = {"httpGet": {"path": "/", "port": 8080}, **QUICK}
    first = shell(serve, readinessProbe=probe)
    kubectl.apply(deployment("web", first, replicas=2), service("web", "web", 80, 8080), pod("visitor"))
    rolled_out(kubectl, "web")
    kubectl("wait", "pod/visitor", "--for=condition=Ready", "--timeout=30s")
    kubectl("wait", "service/web", "--for=condition=Realized", "--timeout=20s")
    # Debian's static busybox dies of wget -T.
    fetch = "timeout 5 wget -q -O /dev/null http://web/"
    loop = f"n=0; while [ ! -e /stop ]; do {fetch} && n=$((n+1)) || echo failed $n; done; echo served $n"
    said: list[str] = []
    client = threading.Thread(
        target=lambda: said.append(kubectl("exec", "visitor", "--", "sh", "-c", loop, timeout_s=90))
    )
    client.start()
    kubectl("rollout", "restart", "deployment/web")
    rolled_out(kubectl, "web")
    time.sleep(1.0)  # what is still stopping is asked for as well
    kubectl("exec", "visitor", "--", "touch", "/stop")
    client.join(30)
    assert "failed" not in said[0], said[0]
    assert int(said[0].split()[-1]) > 20


def test_a_deleted_deployment_frees_its_addresses(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("app", replicas=2))
    rolled_out(kubectl, "app")
    assert len(kubectl.get("ports.network.sphere.io")["items"]) == 2
    kubectl("delete", "deployment", "app")
    eventually(lambda: kubectl.get("ports.network.sphere.io")["items"] == [])
    assert json.loads(kubectl("get", "pods", "-o", "json"))["items"] == []

"""An unmodified Helm: a chart's whole life, by what its users would notice."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sphere.layout import PROJECT
from tests.support.manifests import container, pod

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("helm") is None, reason="no helm: not on PATH, and the wheel is for amd64 only"),
]

CHART = str(PROJECT / "examples" / "chart-hello")
RELEASE = "page"
CLIENT = {"page-client": "true"}
TIMEOUT_S = 90
Eventually = Callable[..., Any]


class Helm:
    """Helm in the test's namespace, with a home of its own."""

    def __init__(self, cluster: Any, namespace: str, home: Path) -> None:
        self.namespace = namespace
        self.environ = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig), "HOME": str(home)}

    def attempt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The finished process, whatever its status."""
        command = ["helm", "--namespace", self.namespace, *arguments]
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, check=False, timeout=TIMEOUT_S + 30
        )

    def __call__(self, *arguments: str) -> str:
        """Standard output; fails the test when Helm does."""
        done = self.attempt(*arguments)
        if done.returncode != 0:
            pytest.fail(f"$ helm {' '.join(arguments)}\n{done.stdout}{done.stderr}")
        return done.stdout

    def release(self) -> dict[str, Any]:
        """The release as `helm list` shows it."""
        (found,) = json.loads(self("list", "-o", "json"))
        release: dict[str, Any] = found
        return release


@pytest.fixture
def helm(cluster: Any, namespace: str, tmp_path: Path) -> Helm:
    return Helm(cluster, namespace, tmp_path)


def install(helm: Helm, *options: str) -> str:
    return helm("install", RELEASE, CHART, "--wait", f"--timeout={TIMEOUT_S}s", *options)


def page_pods(kubectl: Any) -> dict[str, dict[str, Any]]:
    """uid -> pod, of pods that stay."""
    pods = kubectl.get("pods", "-l", f"app.kubernetes.io/instance={RELEASE}")["items"]
    return {one["metadata"]["uid"]: one for one in pods if "deletionTimestamp" not in one["metadata"]}


def is_ready(one: dict[str, Any]) -> bool:
    conditions = one.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def read(kubectl: Any, client: str) -> str:
    """What pod ``client`` gets from the Service; empty if nothing within two seconds."""
    done = kubectl.attempt("exec", client, "--", "timeout", "2", "wget", "-q", "-O", "-", f"http://{RELEASE}/")
    return str(done.stdout).strip()


@pytest.fixture
def clients(kubectl: Any) -> None:
    """Pods that ask: ``friend`` has the label that the chart's policy lets in, ``stranger`` has not."""
    kubectl.apply(pod("friend", container("c"), labels=CLIENT), pod("stranger", container("c")))
    kubectl("wait", "--for=condition=Ready", "--timeout=60s", "pod/friend", "pod/stranger")


@pytest.mark.usefixtures("clients")
def test_install_upgrade_rollback_uninstall(helm: Helm, kubectl: Any, eventually: Eventually) -> None:
    assert "networkpolicy/page" in install(helm), "the notes are rendered"
    first = page_pods(kubectl)
    assert len(first) == 2
    assert all(is_ready(one) for one in first.values()), "--wait waits for readiness"
    assert (helm.release()["revision"], helm.release()["status"]) == ("1", "deployed")
    eventually(lambda: read(kubectl, "friend") == "Hello from Helm")

    helm("upgrade", RELEASE, CHART, "--wait", f"--timeout={TIMEOUT_S}s", "--set", "page=Good evening,replicas=3")
    assert helm.release()["revision"] == "2"
    # The page's checksum is in the pod template: every pod is a new one.
    eventually(lambda: len(page_pods(kubectl)) == 3 and not set(first) & set(page_pods(kubectl)))
    eventually(lambda: read(kubectl, "friend") == "Good evening")

    helm("rollback", RELEASE, "1", "--wait", f"--timeout={TIMEOUT_S}s")
    eventually(lambda: len(page_pods(kubectl)) == 2)
    eventually(lambda: read(kubectl, "friend") == "Hello from Helm")
    assert (helm.release()["revision"], helm.release()["status"]) == ("3", "deployed")
    history = json.loads(helm("history", RELEASE, "-o", "json"))
    assert [one["status"] for one in history] == ["superseded", "superseded", "deployed"]

    helm("uninstall", RELEASE, "--wait", f"--timeout={TIMEOUT_S}s")
    assert json.loads(helm("list", "--all", "-o", "json")) == []
    assert kubectl.get("secrets", "-l", "owner=helm")["items"] == []
    kinds = "deployments,replicasets,pods,services,endpointslices,configmaps,networkpolicies"
    eventually(lambda: kubectl.get(kinds, "-l", f"app.kubernetes.io/instance={RELEASE}")["items"] == [])


@pytest.mark.usefixtures("clients")
def test_the_policy_of_a_chart_holds(helm: Helm, kubectl: Any, eventually: Eventually) -> None:
    install(helm)
    kubectl("wait", "--for=condition=Realized", "--timeout=30s", f"networkpolicy/{RELEASE}")
    eventually(lambda: read(kubectl, "friend") == "Hello from Helm")
    assert read(kubectl, "stranger") == "", "in force everywhere, says the condition"


def test_hooks_run_and_tell(helm: Helm, kubectl: Any) -> None:
    install(helm, "--set", "page=From the hook")
    words = helm("test", RELEASE, "--logs", f"--timeout={TIMEOUT_S}s")
    assert "Phase:          Succeeded" in words
    assert "From the hook" in words, "the pod's log is part of the answer"
    # Nothing to read any more: now the hook must fail, and Helm must say so.
    kubectl("delete", "service", RELEASE)
    failed = helm.attempt("test", RELEASE, f"--timeout={TIMEOUT_S}s")
    assert failed.returncode != 0
    assert "Failed" in failed.stdout + failed.stderr


def test_an_upgrade_that_does_not_get_ready_is_undone(helm: Helm, kubectl: Any, eventually: Eventually) -> None:
    install(helm)
    before = page_pods(kubectl)
    absent = "image=docker.io/library/not-on-any-host:1"
    failed = helm.attempt("upgrade", RELEASE, CHART, "--atomic", "--timeout=15s", "--set", absent)
    assert failed.returncode != 0
    assert "has been rolled back due to atomic being set" in failed.stderr
    assert (helm.release()["revision"], helm.release()["status"]) == ("3", "deployed")
    eventually(lambda: set(page_pods(kubectl)) == set(before), 60)
    assert all(is_ready(one) for one in page_pods(kubectl).values()), "the pods that worked never left"


def test_what_a_chart_may_not_be_given_is_refused(helm: Helm, kubectl: Any) -> None:
    typo = helm.attempt("install", RELEASE, CHART, "--set", "page=x,replica=3")
    assert typo.returncode != 0
    assert "replica" in typo.stderr
    # What the chart's schema lets through and the API does not: the release fails with the API's words.
    cpu = helm.attempt("install", RELEASE, CHART, "--set-json", 'resources={"requests":{"cpu":"much"}}')
    assert cpu.returncode != 0
    assert "much" in cpu.stderr or "quantit" in cpu.stderr
    assert page_pods(kubectl) == {}

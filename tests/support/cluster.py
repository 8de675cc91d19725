"""Fixtures of the end-to-end tests: a cluster, brought up once and taken down at the end unless it was up before.

``cluster`` is the machines, ``namespace`` one for a test, ``kubectl`` the command in it, ``eventually`` polls.
"""

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sphere.kubectl import Kubectl
from sphere.layout import PROJECT, Layout
from sphere.wanted import read_wanted

HOSTS = 3
UP_TIMEOUT_S = 180


def sphere(*arguments: str, timeout_s: float = UP_TIMEOUT_S, check: bool = True) -> str:
    """Run the `sphere` command; its standard output. Fails the test with what it said."""
    command = [sys.executable, "-m", "sphere", *arguments]
    done = subprocess.run(
        command, cwd=PROJECT, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
    )
    if check and done.returncode != 0:
        pytest.fail(f"sphere {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Cluster:
    """What tests do to the machines."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.hosts = [f"host-{number}" for number in range(1, HOSTS + 1)]
        self.kubeconfig: Path = layout.kubeconfig
        self.since = time.time()
        """What was logged later is of these tests."""

    def exec(self, machine: str, *command: str, check: bool = True, timeout_s: float = 60) -> str:
        """Run a command inside a machine (`control`, `host-N`, `outside`)."""
        return sphere("host", "exec", machine, "--", *command, timeout_s=timeout_s, check=check)

    def kill(self, machine: str, component: str) -> None:
        """Kill one component; its supervisor restarts it."""
        sphere("host", "kill", machine, "--component", component)

    def components(self) -> list[dict[str, Any]]:
        """Rows of `sphere status`."""
        rows: list[dict[str, Any]] = json.loads(sphere("status", "-o", "json", check=False))
        return rows


class KubectlInNamespace:
    """kubectl bound to the test's namespace. A failure shows the namespace's pods and events."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self.kubectl = kubectl
        self.namespace = namespace

    def __call__(self, *arguments: str, stdin: str = "", timeout_s: float = 60) -> str:
        """Standard output; fails the test when kubectl does."""
        done = self.attempt(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            pytest.fail(
                f"$ kubectl -n {self.namespace} {' '.join(arguments)}\n{done.stdout}{done.stderr}\n"
                f"{self._circumstances()}"
            )
        return done.stdout

    def attempt(self, *arguments: str, stdin: str = "", timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """The finished process, whatever its status."""
        return self.kubectl.try_run("-n", self.namespace, *arguments, stdin=stdin, timeout_s=timeout_s)

    def get(self, *arguments: str) -> Any:
        """``kubectl get ... -o json``, decoded."""
        return json.loads(self("get", *arguments, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects given as Python data."""
        self("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))

    def _circumstances(self) -> str:
        words = []
        for what in (
            ("get", "pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("describe", "pods"),
        ):
            done = self.attempt(*what)
            words.append(f"$ kubectl {' '.join(what)}\n{done.stdout}{done.stderr}")
        return "\n".join(words)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The whole cluster, Ready."""
    layout = Layout.default()
    was_up = read_wanted(layout) is not None
    try:
        sphere("up", "--hosts", str(HOSTS))
        yield Cluster(layout)
    finally:
        if not was_up:
            sphere("down")


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of its own for each test."""
    kubectl = Kubectl(cluster.layout)
    stem = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower().removeprefix("test_")).strip("-")[:40]
    name = f"t-{stem}-{uuid.uuid4().hex[:6]}"
    kubectl.run("create", "namespace", name)
    yield name
    kubectl.try_run("delete", "namespace", name, "--wait=false")


@pytest.fixture
def kubectl(cluster: Cluster, namespace: str) -> KubectlInNamespace:
    """kubectl in the test's namespace."""
    return KubectlInNamespace(Kubectl(cluster.layout), namespace)


@pytest.fixture
def eventually() -> Callable[..., Any]:
    """Poll until a function returns something true, and return that. A failed assertion in it counts as not yet."""

    def poll(condition: Callable[[], Any], timeout_s: float = 30.0, period_s: float = 0.1) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            failure: AssertionError | None = None
            try:
                value = condition()
            except AssertionError as err:
                value, failure = None, err
            if value:
                return value
            if time.monotonic() > deadline:
                if failure is not None:
                    raise failure
                pytest.fail(f"not within {timeout_s:.0f} s: {condition}")
            time.sleep(period_s)

    return poll

"""Pods that serve and probe, for tests which assert by packets. ``Net`` is a namespace with them in it."""

import contextlib
import json
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sphere.images import build, load, recipes
from sphere.kubectl import Kubectl
from sphere.machines import enter_argv
from sphere.wanted import present_hosts
from tests.support.cluster import Cluster, KubectlInNamespace
from tests.support.manifests import config_map

PROGRAM = Path(__file__).with_name("netprobe.py")
OUTSIDE_ADDRESS = "172.30.0.250"
PYTHON = "/usr/bin/python3.11"
Object = dict[str, Any]
Answers = dict[str, list[str]]


def ensure_image(cluster: Cluster) -> None:
    """The demo's image has a Python: have it on every host."""
    lacking = load.lacking(cluster.layout, present_hosts(cluster.layout), recipes.SHOP.name)
    if lacking:
        load.load(cluster.layout, build.ensure(recipes.SHOP), lacking)


def argv(*words: str) -> list[str]:
    return [PYTHON, "/probe/netprobe.py", *words]


def probe_container(*words: str, **fields: Any) -> Object:
    """A container that runs the program."""
    return {
        "name": "probe",
        "image": recipes.SHOP.name,
        "imagePullPolicy": "IfNotPresent",
        "command": argv(*words),
        "volumeMounts": [{"name": "probe", "mountPath": "/probe"}],
        # A best-effort pod gets next to nothing of a busy machine, and silence would look like a denial.
        "resources": {"requests": {"cpu": "50m"}},
        **fields,
    }


def probe_spec(host: str | None, container: Object, **spec: Any) -> Object:
    """Pod spec: the program's volume, the host it is for."""
    volumes = [{"name": "probe", "configMap": {"name": "netprobe"}}]
    where = {"nodeSelector": {"kubernetes.io/hostname": host}} if host else {}
    return {
        "terminationGracePeriodSeconds": 2,
        "enableServiceLinks": False,
        "containers": [container],
        "volumes": volumes,
        **where,
        **spec,
    }


def server_pod(
    name: str,
    host: str | None,
    labels: dict[str, str] | None = None,
    tcp: str = "8080",
    udp: str = "",
    ports: Sequence[Object] = (),
    **spec: Any,
) -> Object:
    """A pod that serves and, by exec, probes. It is Ready once it listens: earlier, connections to it are refused."""
    listens = {"readinessProbe": {"tcpSocket": {"port": int(tcp.split(",")[0])}, "periodSeconds": 1}} if tcp else {}
    container = probe_container("serve", name, "--tcp", tcp, "--udp", udp, ports=list(ports), **listens)
    meta = {"name": name, "labels": {"app": name, **(labels or {})}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": probe_spec(host, container, **spec)}


def policy(name: str, spec: Object) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }


class Net:
    """What tests do with pods of one namespace."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.kubectl = KubectlInNamespace(Kubectl(cluster.layout), namespace)
        self.kubectl.apply(config_map("netprobe", **{"netprobe.py": PROGRAM.read_text()}))

    def run(self, *pods: Object, timeout_s: int = 40) -> None:
        """Create pods and wait until they are ready."""
        self.kubectl.apply(*pods)
        self.ready(*(pod["metadata"]["name"] for pod in pods), timeout_s=timeout_s)

    def ready(self, *names: str, timeout_s: int = 40) -> None:
        what = [f"pod/{name}" for name in names]
        self.kubectl("wait", "--for=condition=Ready", f"--timeout={timeout_s}s", *what, timeout_s=timeout_s + 10)

    def addresses(self) -> dict[str, str]:
        """Address of each pod."""
        return {each["metadata"]["name"]: each["status"].get("podIP", "") for each in self.kubectl.get("pods")["items"]}

    def probe(self, pod: str, *targets: str, timeout_s: float = 1.0, each: int = 1) -> Answers:
        """What answered to a pod that asked."""
        words = argv("probe", "--timeout", str(timeout_s), "--each", str(each), *targets)
        found: Answers = json.loads(self.kubectl("exec", pod, "--", *words))
        return found

    def answer(self, pod: str, target: str, timeout_s: float = 1.0) -> str:
        """The one answer to one question: name and source address of who was asked, or ``!`` and why not."""
        return self.probe(pod, target, timeout_s=timeout_s)[target][0]

    def realized(self, *what: str, timeout_s: int = 10) -> None:
        """``kubectl wait`` for objects to be in force."""
        self.kubectl("wait", "--for=condition=Realized", f"--timeout={timeout_s}s", *what)

    def condition(self, kind: str, name: str) -> Object:
        """The Realized condition of an object; empty when it has none."""
        conditions = (self.kubectl.get(kind, name).get("status") or {}).get("conditions") or []
        return next((each for each in conditions if each["type"] == "Realized"), {})


@contextlib.contextmanager
def new_net(cluster: Cluster, stem: str, labels: Object | None = None, strict: bool = False) -> Iterator[Net]:
    """A namespace of its own, gone at the end."""
    name = f"t-{stem}-{uuid.uuid4().hex[:6]}"
    meta: Object = {"name": name, "labels": labels or {}}
    if strict:
        meta["annotations"] = {"network.sphere.io/realization": "strict"}
    kubectl = Kubectl(cluster.layout)
    ensure_image(cluster)
    kubectl.run("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
    try:
        yield Net(cluster, name)
    finally:
        kubectl.try_run("delete", "namespace", name, "--wait=false")


def probe_from(cluster: Cluster, machine: str, *targets: str, timeout_s: float = 1.0, each: int = 1) -> Answers:
    """What answered to a machine (a host, ``outside``) that asked."""
    words = ["python3", str(PROGRAM), "probe", "--timeout", str(timeout_s), "--each", str(each), *targets]
    found: Answers = json.loads(cluster.exec(machine, *words))
    return found


def names(answers: Iterable[str]) -> set[str]:
    """Who answered."""
    return {answer.split()[0] for answer in answers}


@contextlib.contextmanager
def outside_server(cluster: Cluster, port: int = 8099) -> Iterator[str]:
    """A server on the physical network; yields the target to ask."""
    command = enter_argv(cluster.layout, "outside", ["python3", str(PROGRAM), "serve", "outside", "--tcp", str(port)])
    server = subprocess.Popen(command)
    try:
        target = f"tcp:{OUTSIDE_ADDRESS}:{port}"
        deadline = time.monotonic() + 10
        while probe_from(cluster, "outside", target)[target][0].startswith("!"):
            assert time.monotonic() < deadline, "the server outside does not start"
        yield target
    finally:
        server.terminate()
        server.wait(5)

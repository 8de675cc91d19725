"""The one-machine cluster as its user meets it."""

import json
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from sphere.images import archive
from sphere.kubectl import Kubectl
from sphere.layout import PROJECT

pytestmark = pytest.mark.e2e


def test_nodes_are_ready(cluster: Any) -> None:
    nodes = json.loads(Kubectl(cluster.layout).run("get", "nodes", "-o", "json"))["items"]
    assert sorted(node["metadata"]["name"] for node in nodes) == cluster.hosts
    for node in nodes:
        assert {"type": "Ready", "status": "True"}.items() <= next(
            one.items() for one in node["status"]["conditions"] if one["type"] == "Ready"
        )


def test_kubeconfig_is_the_admins_alone(cluster: Any) -> None:
    assert stat.S_IMODE(cluster.kubeconfig.stat().st_mode) == 0o600


def test_every_component_runs(cluster: Any) -> None:
    rows = cluster.components()
    names = {(row["machine"], row["component"]) for row in rows if row["state"] == "running"}
    assert {("control", "etcd"), ("control", "mosquitto"), ("control", "sphere-controller")} <= names
    for host in cluster.hosts:
        for component in ("containerd", "unbound", "nsx-agent", "spherelet"):
            assert (host, component) in names


def test_a_killed_component_is_back_within_two_seconds(cluster: Any, eventually: Callable[..., Any]) -> None:
    def state() -> dict[str, Any]:
        rows = cluster.components()
        return next(row for row in rows if (row["machine"], row["component"]) == ("host-1", "unbound"))

    before = state()
    cluster.kill("host-1", "unbound")

    def is_back() -> bool:
        now = state()
        return now["state"] == "running" and now["pid"] != before["pid"]

    eventually(is_back, timeout_s=2.0)


def test_busybox_is_on_every_host(cluster: Any) -> None:
    for host in cluster.hosts:
        names = cluster.exec(host, "ctr", "-n", "k8s.io", "images", "list", "-q").split()
        assert "docker.io/library/busybox:latest" in names


def test_private_ranges_do_not_leave_the_machine(cluster: Any) -> None:
    for address in ("10.64.0.1", "10.96.0.1", "172.30.0.11"):
        done = subprocess.run(["ip", "route", "get", address], capture_output=True, text=True, check=False, timeout=10)
        assert done.returncode != 0, done.stdout


def test_images_are_reproducible(cluster: Any) -> None:
    from sphere.images import build, recipes

    target = build.ensure(recipes.BUSYBOX)
    first = target.read_bytes()
    target.with_suffix(".stamp").unlink()
    assert build.ensure(recipes.BUSYBOX).read_bytes() == first
    assert archive.image_names(target) == ("docker.io/library/busybox:latest",)
    assert target.is_relative_to(PROJECT)

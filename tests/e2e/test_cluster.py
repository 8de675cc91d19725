"""The one-machine cluster as its user meets it."""

import hashlib
import io
import json
import platform
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sphere import underlay
from sphere.images import archive
from sphere.kubectl import Kubectl
from sphere.layout import PROJECT
from tests.support.cluster import sphere
from tests.support.manifests import container, pod

pytestmark = pytest.mark.e2e
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


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


def _docker_archive(path: Path, tag: str) -> Path:
    """What `docker save` writes, of an image that holds the program of the busybox image."""
    layer, config = io.BytesIO(), {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
    with tarfile.open(fileobj=layer, mode="w") as out:
        out.add("/bin/busybox", "bin/busybox")
        for name in ("sh", "sleep", "cat"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            out.addfile(link)
    digest = f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"
    image = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [],
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(image).encode(),
        "layer.tar": layer.getvalue(),
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(path, "w") as out:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            out.addfile(member, io.BytesIO(content))
    return path


def _oci_archive(path: Path, folder: Path, name: str) -> Path:
    """What `skopeo copy ... oci-archive:PATH:NAME` writes."""
    (folder / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", folder / "bin" / "sh")
    archive.write(path, folder, name, ARCHITECTURE, {"Env": ["PATH=/bin"], "Cmd": ["sh"]})
    return path


@pytest.mark.parametrize("form", ["docker", "oci"])
def test_a_loaded_image_is_run_by_its_short_name_on_every_host(
    cluster: Any, kubectl: Any, tmp_path: Path, form: str
) -> None:
    short = f"loaded-{form}:1"
    if form == "docker":
        path = _docker_archive(tmp_path / "image.tar", short)
    else:
        path = _oci_archive(tmp_path / "image.tar", tmp_path / "tree", short)
    whole = f"docker.io/library/{short}"
    try:
        assert sphere("image", "load", str(path)) == f"{whole}: on {len(cluster.hosts)} hosts\n"
        listed = {row["image"]: row["hosts"] for row in json.loads(sphere("image", "list", "-o", "json"))}
        assert listed[whole].split() == cluster.hosts
        words = ["sh", "-c", "echo it runs"]
        for host in cluster.hosts:
            one = {**container("c", *words), "image": short, "imagePullPolicy": "Never"}
            kubectl.apply(pod(f"on-{host}", one, nodeSelector={"kubernetes.io/hostname": host}, restartPolicy="Never"))
        kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s", "pod", "--all", timeout_s=70)
        assert kubectl("logs", f"on-{cluster.hosts[0]}") == "it runs\n"
    finally:
        for host in cluster.hosts:
            cluster.exec(host, "ctr", "-n", "k8s.io", "images", "rm", whole, short, check=False)


def test_a_host_comes_and_goes_without_a_trace(cluster: Any) -> None:
    kubectl = Kubectl(cluster.layout)

    def nodes() -> list[str]:
        listed = kubectl.run("get", "nodes", "-o", "name").split()
        return sorted(name.removeprefix("node/") for name in listed)

    before = {(row["machine"], row["component"]): row["pid"] for row in cluster.components()}
    more = len(cluster.hosts) + 1
    try:
        sphere("up", "--hosts", str(more))
        assert nodes() == [*cluster.hosts, f"host-{more}"]
    finally:
        sphere("up", "--hosts", str(len(cluster.hosts)))
    assert nodes() == cluster.hosts, "the API knows no host that is not there"
    assert not (cluster.layout.run / "hosts" / f"host-{more}").exists()
    assert f"sphere-host-{more}" not in underlay.ours()
    now = {(row["machine"], row["component"]): row["pid"] for row in cluster.components()}
    # Prometheus, where it runs, is told of hosts by its settings.
    changed = {key for key in before if before[key] != now.get(key)} - {("control", "prometheus")}
    assert (changed, set(now) - set(before)) == (set(), set()), "nothing else was touched"


def test_who_uses_a_renewed_certificate_is_started_anew_and_nobody_else(
    cluster: Any, eventually: Callable[..., Any]
) -> None:
    def pids() -> dict[tuple[str, str], int]:
        return {(row["machine"], row["component"]): row["pid"] for row in cluster.components()}

    before = pids()
    (cluster.layout.pki / "host-2-agent.crt").unlink()
    sphere("up", "--hosts", str(len(cluster.hosts)))
    user = ("host-2", "nsx-agent")
    eventually(lambda: pids()[user] not in (None, before[user]))
    now = pids()
    assert {key for key in before if before[key] != now[key]} == {user}
    assert cluster.layout.pki.joinpath("host-2-agent.crt").exists()

"""Persistent volumes on the hosts' disks, as a user of a StatefulSet and an admin with disks of their own see them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.manifests import Object, container, pod, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]
MOUNTS = [{"name": "data", "mountPath": "/data"}]


def claim(name: str, **spec: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}, **spec},
    }


def claiming(name: str, claim_name: str, **spec: Any) -> Object:
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": claim_name}}]
    return pod(name, container(volumeMounts=MOUNTS), volumes=volumes, **spec)


def stateful_set(name: str, replicas: int = 2) -> Object:
    """Each pod writes its uid once and shows what was written first."""
    script = "test -e /data/first || echo $UID_OF_POD > /data/first; trap 'exit 0' TERM; sleep 1d & wait"
    env = [{"name": "UID_OF_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}}]
    template = pod(name, shell(script, volumeMounts=MOUNTS, env=env), labels={"app": name})
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": template["metadata"], "spec": template["spec"]},
            "volumeClaimTemplates": [claim("data")],
        },
    }


def uids_of(kubectl: Kubectl, name: str) -> list[str]:
    found = kubectl.get("pods", "-l", f"statefulset.kubernetes.io/pod-name={name}")["items"]
    return [each["metadata"]["uid"] for each in found]


def failed_scheduling(kubectl: Kubectl, name: str) -> str:
    fields = f"involvedObject.name={name},reason=FailedScheduling"
    return " ".join(each["message"] for each in kubectl.get("events", "--field-selector", fields)["items"])


def test_a_stateful_set_finds_its_data_again(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(stateful_set("db"))
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    listed = kubectl("get", "pvc")
    assert listed.count("Bound") == 2
    assert listed.count(" local ") == 2
    assert "local (default)" in kubectl("get", "storageclass")
    before = kubectl.get("pod", "db-0")
    uid = before["metadata"]["uid"]
    assert kubectl("exec", "db-0", "--", "cat", "/data/first").strip() == uid
    kubectl("delete", "pod", "db-0")
    eventually(lambda: uid not in (uids := uids_of(kubectl, "db-0")) and uids)
    kubectl("wait", "--for=condition=Ready", "pod/db-0", "--timeout=60s")
    after = kubectl.get("pod", "db-0")
    assert after["metadata"]["uid"] != uid
    assert after["spec"]["nodeName"] == before["spec"]["nodeName"]
    assert kubectl("exec", "db-0", "--", "cat", "/data/first").strip() == uid, "what the pod before it wrote"
    kubectl("delete", "statefulset", "db")
    eventually(lambda: not kubectl.get("pods", "-l", "app=db")["items"])
    kubectl.apply(stateful_set("db"))
    kubectl("rollout", "status", "statefulset/db", "--timeout=60s")
    assert kubectl("exec", "db-0", "--", "cat", "/data/first").strip() == uid, "claims outlive their StatefulSet"


def test_a_killed_spherelet_keeps_data_and_pod(kubectl: Kubectl, cluster: Cluster, eventually: Eventually) -> None:
    kubectl.apply(claim("data"), claiming("keeper", "data"))
    kubectl("wait", "--for=condition=Ready", "pod/keeper", "--timeout=60s")
    kubectl("exec", "keeper", "--", "sh", "-c", "echo kept > /data/file")
    host = kubectl.get("pod", "keeper")["spec"]["nodeName"]
    cluster.kill(host, "spherelet")
    eventually(lambda: kubectl.attempt("exec", "keeper", "--", "cat", "/data/file").stdout.strip() == "kept")
    assert kubectl.get("pod", "keeper")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_deleted_claim_waits_for_its_pod_and_frees_its_directory(
    kubectl: Kubectl, cluster: Cluster, eventually: Eventually
) -> None:
    kubectl.apply(claim("data"))
    eventually(lambda: "waiting for first consumer to be created before binding" in kubectl("get", "events"))
    assert "Pending" in kubectl("get", "pvc", "data")
    kubectl.apply(claiming("user", "data", securityContext={"fsGroup": 4321}))
    kubectl("wait", "--for=condition=Ready", "pod/user", "--timeout=60s")
    assert kubectl("exec", "user", "--", "stat", "-c", "%g", "/data").strip() == "4321"
    host, volume = kubectl.get("pod", "user")["spec"]["nodeName"], kubectl.get("pvc", "data")["spec"]["volumeName"]
    directory = str(cluster.layout.state(host) / "spherelet/persistent" / volume)
    kubectl("exec", "user", "--", "sh", "-c", "echo x > /data/file")
    assert "file" in cluster.exec(host, "ls", directory)
    kubectl("delete", "pvc", "data", "--wait=false")
    eventually(lambda: "Terminating" in kubectl("get", "pvc", "data"))
    assert kubectl("exec", "user", "--", "cat", "/data/file").strip() == "x"
    kubectl("delete", "pod", "user")
    eventually(lambda: kubectl.attempt("get", "pvc", "data").returncode != 0)
    eventually(lambda: kubectl.attempt("get", "pv", volume).returncode != 0)
    assert volume not in cluster.exec(host, "ls", str(cluster.layout.state(host) / "spherelet/persistent"))


@pytest.fixture
def disk(kubectl: Kubectl, cluster: Cluster, namespace: str) -> Iterator[Object]:
    """A static local volume on the second host, removed with its data."""
    host = cluster.hosts[1]
    path = str(cluster.layout.state(host) / f"disk-{namespace}")
    cluster.exec(host, "mkdir", "-p", path)
    cluster.exec(host, "sh", "-c", f"echo brought > {path}/file")
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}
    made = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"disk-{namespace}"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Gi"},
            "local": {"path": path},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
            "storageClassName": f"disks-{namespace}",
        },
    }
    kubectl.apply(made)
    try:
        yield made
    finally:
        kubectl("delete", "pod", "--all", "--now")
        kubectl("delete", "pvc", "--all")
        kubectl("delete", "pv", made["metadata"]["name"], "--ignore-not-found")
        cluster.exec(host, "rm", "-r", path)


def test_a_static_volume_pulls_the_pod_to_its_host_and_keeps_its_data(
    kubectl: Kubectl, cluster: Cluster, disk: Object, eventually: Eventually
) -> None:
    name = disk["metadata"]["name"]
    eventually(lambda: kubectl.get("pv", name)["status"]["phase"] == "Available")
    kubectl.apply(claim("data", storageClassName=disk["spec"]["storageClassName"]), claiming("user", "data"))
    kubectl("wait", "--for=condition=Ready", "pod/user", "--timeout=60s")
    assert kubectl.get("pod", "user")["spec"]["nodeName"] == cluster.hosts[1]
    assert kubectl("exec", "user", "--", "cat", "/data/file").strip() == "brought"
    assert kubectl.get("pvc", "data")["status"]["capacity"] == {"storage": "1Gi"}
    elsewhere = claiming("elsewhere", "data", nodeSelector={"kubernetes.io/hostname": cluster.hosts[0]})
    kubectl.apply(elsewhere)
    eventually(lambda: "didn't match PersistentVolume's node affinity" in failed_scheduling(kubectl, "elsewhere"))
    kubectl("delete", "pod", "user", "elsewhere")
    kubectl("delete", "pvc", "data")
    eventually(lambda: kubectl.get("pv", name)["status"]["phase"] == "Released")
    assert "file" in cluster.exec(cluster.hosts[1], "ls", disk["spec"]["local"]["path"])


def test_pods_that_wait_say_why_in_upstreams_words(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(claiming("early", "late"), claim("static", storageClassName=""), claiming("stuck", "static"))
    eventually(lambda: 'persistentvolumeclaim "late" not found' in failed_scheduling(kubectl, "early"))
    eventually(lambda: "pod has unbound immediate PersistentVolumeClaims" in failed_scheduling(kubectl, "stuck"))
    eventually(lambda: "no storage class is set" in kubectl("describe", "pvc", "static"))
    kubectl.apply(claim("late"))
    kubectl("wait", "--for=condition=Ready", "pod/early", "--timeout=60s")


def test_an_ephemeral_volume_comes_and_goes_with_its_pod(kubectl: Kubectl, eventually: Eventually) -> None:
    source = {"volumeClaimTemplate": {"spec": claim("x")["spec"]}}
    kubectl.apply(pod("brief", container(volumeMounts=MOUNTS), volumes=[{"name": "data", "ephemeral": source}]))
    kubectl("wait", "--for=condition=Ready", "pod/brief", "--timeout=60s")
    assert "Bound" in kubectl("get", "pvc", "brief-data")
    kubectl("exec", "brief", "--", "touch", "/data/file")
    kubectl("delete", "pod", "brief")
    eventually(lambda: kubectl.attempt("get", "pvc", "brief-data").returncode != 0)

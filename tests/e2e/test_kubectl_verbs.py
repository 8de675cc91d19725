"""Every verb of kubectl on objects of the API: each test is what a user does in a terminal."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.manifests import config_map, container, deployment, pod

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]


def header(table: str) -> list[str]:
    """Column names of a printed table: they are two spaces or more apart."""
    return [word.strip() for word in table.splitlines()[0].split("  ") if word.strip()]


def test_version_and_discovery(kubectl: Kubectl) -> None:
    version = json.loads(kubectl("version", "-o", "json"))
    assert version["serverVersion"]["major"] == "1"
    assert "is running at" in kubectl("cluster-info")
    resources = kubectl("api-resources", "-o", "wide")
    assert header(resources) == ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"]
    names = set(kubectl("api-resources", "-o", "name").split())
    assert {
        "pods",
        "deployments.apps",
        "networkpolicies.networking.k8s.io",
        "events",
        "leases.coordination.k8s.io",
    } <= names
    assert "pods" in kubectl("api-resources", "--namespaced=true", "--api-group=", "--verbs=list,watch")
    assert {"v1", "apps/v1", "networking.k8s.io/v1"} <= set(kubectl("api-versions").split())
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_explain(kubectl: Kubectl) -> None:
    assert "List of containers belonging to the pod" in kubectl("explain", "pod.spec.containers")
    assert "livenessProbe\t<Probe>" in kubectl("explain", "deployment", "--recursive")
    assert "VERSION:    v1" in kubectl("explain", "networkpolicies.spec.podSelector")
    assert 'field "nope" does not exist' in kubectl.attempt("explain", "pod.nope").stderr


COLUMNS = {
    "pods": "NAME READY STATUS RESTARTS AGE",
    "deployments": "NAME READY UP-TO-DATE AVAILABLE AGE",
    "replicasets": "NAME DESIRED CURRENT READY AGE",
    "services": "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE",
    "endpoints": "NAME ENDPOINTS AGE",
    "endpointslices": "NAME ADDRESSTYPE PORTS ENDPOINTS AGE",
    "configmaps": "NAME DATA AGE",
    "secrets": "NAME TYPE DATA AGE",
    "networkpolicies": "NAME POD-SELECTOR AGE",
    "leases -n kube-node-lease": "NAME HOLDER AGE",
    "roles": "NAME CREATED AT",
    "rolebindings": "NAME ROLE AGE",
    "clusterroles": "NAME CREATED AT",
    "clusterrolebindings": "NAME ROLE AGE",
    "nodes": "NAME STATUS ROLES AGE VERSION",
    "namespaces": "NAME STATUS AGE",
    "events": "LAST SEEN TYPE REASON OBJECT MESSAGE",
}
WIDE = {
    "pods": "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES",
    "deployments": "NAME READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR",
    "replicasets": "NAME DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR",
    "services": "NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR REALIZED",
    "nodes": "NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME",
    "rolebindings": "NAME ROLE AGE USERS GROUPS SERVICEACCOUNTS",
    "events": "LAST SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST SEEN COUNT NAME",
}


def test_tables_have_upstreams_columns(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("web"), config_map("one", a="b"))
    kubectl("expose", "deployment", "web", "--port=80", "--target-port=8080")
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    kubectl("create", "role", "r", "--verb=get", "--resource=pods")
    kubectl("create", "rolebinding", "b", "--role=r", "--user=someone")
    policy = {"podSelector": {"matchLabels": {"app": "web"}}, "policyTypes": ["Ingress"]}
    kubectl.apply(
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": policy}
    )
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    eventually(lambda: "Started" in kubectl("get", "events"))
    for wanted, flags in ((COLUMNS, ()), (WIDE, ("-o", "wide"))):
        for kinds, columns in wanted.items():
            words = " ".join(kubectl("get", *kinds.split(), *flags).splitlines()[0].split())
            assert words == columns, kinds
    both = kubectl("get", "deployments,services")
    assert "deployment.apps/web" in both
    assert "service/web" in both
    assert "No resources found" in kubectl.attempt("get", "pods", "-l", "app=none").stderr


def test_get_selects_sorts_and_prints(kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(
        *(
            {**config_map(name, key=name), "metadata": {"name": name, "labels": {"tier": tier}}}
            for name, tier in (("b", "front"), ("c", "back"), ("a", "back"))
        )
    )

    def names(*flags: str) -> list[str]:
        found: list[str] = kubectl("get", "configmaps", "-o", "name", "-l", "tier", *flags).split()
        return [name.removeprefix("configmap/") for name in found]

    assert names() == ["a", "b", "c"]
    assert names("-l", "tier=back") == ["a", "c"]
    assert names("-l", "tier in (front,x)") == ["b"]
    assert names("-l", "tier!=back,tier") == ["b"]
    assert "a" not in names("-l", "!tier")
    assert names("--chunk-size=1") == ["a", "b", "c"]
    assert kubectl("get", "cm", "--field-selector", "metadata.name=c", "-o", "name").strip() == "configmap/c"
    assert namespace in kubectl("get", "cm", "-A", "-l", "tier=front")
    assert kubectl("get", "cm", "a", "-o", "jsonpath={.data.key}") == "a"
    custom = kubectl("get", "cm", "-l", "tier=back", "-o", "custom-columns=N:.metadata.name,V:.data.key")
    assert [line.split() for line in custom.splitlines()] == [["N", "V"], ["a", "a"], ["c", "c"]]
    assert yaml.safe_load(kubectl("get", "cm", "a", "-o", "yaml"))["data"] == {"key": "a"}
    assert kubectl("get", "cm", "a", "-o", "go-template={{.data.key}}") == "a"
    shown = kubectl("get", "cm", "-l", "tier", "--sort-by={.metadata.labels.tier}", "--no-headers", "-L", "tier")
    assert [line.split()[3] for line in shown.splitlines()] == ["back", "back", "front"]


def test_watching_a_table(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    command = ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "-n", namespace, "get", "cm", "-w", "-l", "watched"]
    with subprocess.Popen([*command, "--output-watch-events"], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        stop = threading.Timer(20, watching.kill)
        stop.start()
        try:
            made = {**config_map("w"), "metadata": {"name": "w", "labels": {"watched": "yes"}}}
            time.sleep(0.5)  # that the watch is there first is likely, and the test does not depend on it
            kubectl.apply(made)
            kubectl("annotate", "cm", "w", "a=b")
            kubectl("label", "cm", "w", "watched-")
            seen = [watching.stdout.readline().split()[:2] for _ in range(4)]
        finally:
            stop.cancel()
            watching.kill()
    assert seen == [["EVENT", "NAME"], ["ADDED", "w"], ["MODIFIED", "w"], ["DELETED", "w"]]


def test_create_generators(kubectl: Kubectl, tmp_path: Path) -> None:
    key, cert = tmp_path / "tls.key", tmp_path / "tls.crt"
    subject = ["-subj", "/CN=t", "-days", "2", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject], check=True, capture_output=True
    )
    (tmp_path / "file.txt").write_text("in a file")
    for words in (
        f"configmap files --from-file={tmp_path}/file.txt --from-literal=k=v",
        f"secret tls pair --cert={cert} --key={key}",
        "secret generic plain --from-literal=user=me",
        "secret docker-registry pull --docker-server=r.test --docker-username=u --docker-password=p",
        "serviceaccount robot",
        "role reader --verb=get,list --resource=pods,pods/log",
        "rolebinding readers --role=reader --serviceaccount=x:robot --group=g",
        "deployment made --image=busybox --replicas=0",
        "service clusterip inner --tcp=80:8080",
        "service nodeport outer --tcp=80:8080",
        "service loadbalancer lb --tcp=80:8080",
        "service externalname ext --external-name=example.com",
        "quota q --hard=pods=3",
        "poddisruptionbudget budget --selector=app=x --min-available=1",
        "job once --image=busybox -- true",
        "cronjob often --image=busybox --schedule=@hourly -- true",
        "ingress in --rule=example.com/=inner:80",
    ):
        said = kubectl("create", *words.split())
        assert said.rstrip().endswith("created"), said
    assert kubectl.get("configmap", "files")["data"] == {"file.txt": "in a file", "k": "v"}
    assert kubectl.get("secret", "pair")["type"] == "kubernetes.io/tls"
    token = kubectl("create", "token", "robot", "--duration=10m").strip()
    assert token.count(".") == 2
    assert kubectl.get("service", "inner")["spec"]["clusterIP"].startswith("10.96.")
    assert 30000 <= kubectl.get("service", "outer")["spec"]["ports"][0]["nodePort"] <= 32767
    dry = yaml.safe_load(kubectl("create", "deployment", "dry", "--image=x", "--dry-run=client", "-o", "yaml"))
    assert dry["kind"] == "Deployment"
    assert kubectl.attempt("get", "deployment", "dry").returncode != 0


def test_client_side_apply(kubectl: Kubectl) -> None:
    first = deployment("app", container(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]), replicas=0)
    text = json.dumps(first)
    assert "created" in kubectl("apply", "-f", "-", stdin=text)
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=text)
    kubectl("scale", "deployment", "app", "--replicas=0")
    kubectl("label", "deployment", "app", "mine=kept")
    second = deployment("app", container(env=[{"name": "B", "value": "3"}]), replicas=0)
    diff = kubectl.attempt("diff", "-f", "-", stdin=json.dumps(second))
    assert diff.returncode == 1
    assert '+          value: "3"' in diff.stdout
    assert "configured (server dry run)" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(second))
    assert kubectl.get("deployment", "app")["metadata"]["generation"] == 1
    assert "configured" in kubectl("apply", "-f", "-", stdin=json.dumps(second))
    live = kubectl.get("deployment", "app")
    assert live["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "3"}]
    assert live["metadata"]["labels"]["mine"] == "kept"
    assert "last-applied" not in kubectl("apply", "view-last-applied", "deployment/app")


def test_apply_prunes_what_is_gone_from_the_manifest(kubectl: Kubectl) -> None:
    def labelled(name: str) -> dict[str, Any]:
        return {**config_map(name), "metadata": {"name": name, "labels": {"set": "one"}}}

    kubectl.apply(labelled("stays"), labelled("goes"))
    flags = ("apply", "--prune", "-l", "set=one", "--prune-allowlist=core/v1/ConfigMap", "-f", "-")
    assert "goes" in kubectl(*flags, stdin=json.dumps(labelled("stays")))
    assert kubectl("get", "cm", "-l", "set=one", "-o", "name").split() == ["configmap/stays"]


def test_server_side_apply_owns_fields(kubectl: Kubectl) -> None:
    def apply(manager: str, *flags: str, **data: str) -> subprocess.CompletedProcess[str]:
        words = ("apply", "--server-side", f"--field-manager={manager}", *flags, "-f", "-")
        done: subprocess.CompletedProcess[str] = kubectl.attempt(*words, stdin=json.dumps(config_map("owned", **data)))
        return done

    assert "serverside-applied" in apply("one", a="1", b="1").stdout
    assert "serverside-applied" in apply("two", c="2").stdout
    refused = apply("two", a="2", c="2")
    assert 'conflict with "one": .data.a' in refused.stderr
    assert "--force-conflicts" in refused.stderr
    assert apply("two", "--force-conflicts", a="2", c="2").returncode == 0
    assert apply("one", b="1").returncode == 0
    assert kubectl.get("cm", "owned")["data"] == {"a": "2", "b": "1", "c": "2"}
    assert apply("one").returncode == 0
    assert kubectl.get("cm", "owned")["data"] == {"a": "2", "c": "2"}
    managers = json.loads(kubectl("get", "cm", "owned", "-o", "json", "--show-managed-fields"))["metadata"][
        "managedFields"
    ]
    assert {each["manager"] for each in managers} >= {"two"}


def test_patch_in_all_forms(kubectl: Kubectl) -> None:
    kubectl.apply(config_map("c", a="1"), deployment("d", container("x"), replicas=0))
    kubectl("patch", "cm", "c", "--type=merge", "-p", '{"data":{"b":"2","a":null}}')
    assert kubectl.get("cm", "c")["data"] == {"b": "2"}
    kubectl("patch", "cm", "c", "--type=json", "-p", '[{"op":"move","from":"/data/b","path":"/data/c"}]')
    assert kubectl.get("cm", "c")["data"] == {"c": "2"}
    strategic = {"spec": {"template": {"spec": {"containers": [{"name": "y", "image": "busybox"}]}}}}
    kubectl("patch", "deployment", "d", "-p", json.dumps(strategic))
    containers = kubectl.get("deployment", "d")["spec"]["template"]["spec"]["containers"]
    assert sorted(each["name"] for each in containers) == ["x", "y"]
    strategic["spec"]["template"]["spec"]["containers"] = [{"name": "x", "$patch": "delete"}]
    kubectl("patch", "deployment", "d", "-p", json.dumps(strategic))
    assert [each["name"] for each in kubectl.get("deployment", "d")["spec"]["template"]["spec"]["containers"]] == ["y"]
    kubectl("patch", "deployment", "d", "--subresource=scale", "--type=merge", "-p", '{"spec":{"replicas":0}}')
    assert "no change" in kubectl("patch", "cm", "c", "-p", '{"data":{"c":"2"}}')


def test_replace_respects_the_version(kubectl: Kubectl) -> None:
    kubectl.apply(config_map("r", a="1"))
    seen = kubectl.get("cm", "r")
    seen["data"] = {"a": "2"}
    assert "replaced" in kubectl("replace", "-f", "-", stdin=json.dumps(seen))
    late = kubectl.attempt("replace", "-f", "-", stdin=json.dumps({**seen, "data": {"a": "3"}}))
    assert "the object has been modified; please apply your changes to the latest version" in late.stderr
    before = kubectl.get("cm", "r")["metadata"]["uid"]
    kubectl("replace", "--force", "-f", "-", stdin=json.dumps(config_map("r", a="4")))
    assert kubectl.get("cm", "r")["metadata"]["uid"] != before


def test_edit(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(config_map("e", word="before"), deployment("d", replicas=0))

    def edit(script: str, *what: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "-n", namespace, "edit", *what],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "KUBE_EDITOR": f"sed -i {script}", "HOME": "/nonexistent"},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip

    assert "configmap/e edited" in edit("s/before/after/", "cm", "e").stdout
    assert kubectl.get("cm", "e")["data"] == {"word": "after"}
    assert "no changes made" in edit("s/nothing/at-all/", "cm", "e").stderr
    refused = edit("s/replicas:.*/replicas:\\ -4/", "deployment", "d")
    assert refused.returncode != 0
    assert "is invalid" in refused.stderr


def test_labels_and_annotations(kubectl: Kubectl) -> None:
    kubectl.apply(config_map("l"))
    kubectl("label", "cm", "l", "a=1", "b=2")
    assert "already has a value" in kubectl.attempt("label", "cm", "l", "a=2").stderr
    kubectl("label", "cm", "l", "a=2", "b-", "--overwrite")
    kubectl("annotate", "cm", "--all", "note=some words")
    found = kubectl.get("cm", "l")["metadata"]
    assert found["labels"] == {"a": "2"}
    assert found["annotations"]["note"] == "some words"


def test_deletion_with_dependents(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("orphaned", replicas=1), deployment("front", replicas=2), deployment("back", replicas=1))
    for name in ("orphaned", "front", "back"):
        kubectl("rollout", "status", f"deployment/{name}", "--timeout=30s")
    kubectl("delete", "deployment", "orphaned", "--cascade=orphan")
    kubectl("delete", "deployment", "front", "--cascade=foreground")
    assert kubectl("get", "pods,rs", "-l", "app=front", "-o", "name") == ""
    kubectl("delete", "deployment", "back")
    eventually(lambda: not kubectl("get", "pods,rs", "-l", "app=back", "-o", "name"))
    assert len(kubectl("get", "pods,rs", "-l", "app=orphaned", "-o", "name").split()) == 2
    assert "ownerReferences" not in kubectl.get("rs", "-l", "app=orphaned")["items"][0]["metadata"]
    kubectl("delete", "rs,pods", "-l", "app=orphaned")
    assert "No resources found" in kubectl.attempt("get", "pods").stderr


def test_a_namespace_goes_with_all_that_is_in_it(kubectl: Kubectl, namespace: str) -> None:
    inner = f"{namespace[:50]}-inner"
    kubectl("create", "namespace", inner)
    held = {**config_map("held"), "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    objects = {"apiVersion": "v1", "kind": "List", "items": [deployment("d"), held]}
    kubectl("apply", "-n", inner, "-f", "-", stdin=json.dumps(objects))
    kubectl("rollout", "status", "deployment/d", "-n", inner, "--timeout=30s")
    kubectl("delete", "namespace", inner, "--wait=false")
    assert "Terminating" in kubectl("get", "namespace", inner)
    refused = kubectl.attempt("create", "configmap", "late", "-n", inner)
    assert "because it is being terminated" in refused.stderr
    kubectl("patch", "cm", "held", "-n", inner, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    kubectl("wait", "--for=delete", f"namespace/{inner}", "--timeout=50s")
    assert "not found" in kubectl.attempt("get", "namespace", inner).stderr


def test_finalizers_hold_an_object(kubectl: Kubectl) -> None:
    held = {**config_map("held"), "metadata": {"name": "held", "finalizers": ["example.com/hold"]}}
    kubectl.apply(held)
    kubectl("delete", "cm", "held", "--wait=false")
    assert kubectl.get("cm", "held")["metadata"]["deletionTimestamp"]
    kubectl("patch", "cm", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert kubectl.attempt("get", "cm", "held").returncode != 0


def test_wait(kubectl: Kubectl) -> None:
    kubectl.apply(pod("p"))
    assert "condition met" in kubectl("wait", "pod/p", "--for=condition=Ready", "--timeout=30s")
    assert "condition met" in kubectl("wait", "pod/p", "--for=jsonpath={.status.phase}=Running", "--timeout=5s")
    late = kubectl.attempt("wait", "pod/p", "--for=condition=Never", "--timeout=1s")
    assert "timed out waiting for the condition" in late.stderr
    kubectl("delete", "pod", "p", "--wait=false")
    kubectl("wait", "pod/p", "--for=delete", "--timeout=20s")


def test_describe_tells_the_story(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(deployment("d"))
    kubectl("expose", "deployment", "d", "--port=80")
    kubectl("rollout", "status", "deployment/d", "--timeout=30s")

    def story() -> list[str]:
        events = kubectl("describe", "pod", "-l", "app=d").split("Events:")[1].splitlines()[3:]
        return [line.split()[1] for line in events if line.strip()]

    eventually(lambda: story() == ["Scheduled", "Pulled", "Created", "Started"])
    told = kubectl("describe", "deployment", "d")
    assert "1 desired | 1 updated | 1 total | 1 available | 0 unavailable" in told
    assert "Scaled up replica set" in told
    address = kubectl("get", "pods", "-l", "app=d", "-o", "jsonpath={.items[0].status.podIP}")
    assert f"Endpoints:                {address}:80" in kubectl("describe", "service", "d")
    node = kubectl("describe", "node", "host-1")
    assert "KubeletReady" in node
    assert "Allocated resources" in node
    for kind in ("replicaset", "endpointslice", "namespace", "serviceaccount", "role", "clusterrole/view"):
        kubectl("describe", *kind.split("/"))


def test_events(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("noted"))
    eventually(lambda: "Started" in kubectl("events", "--for", "pod/noted"))
    assert "default-scheduler" in kubectl("get", "events", "-o", "wide")
    assert kubectl("get", "events", "--field-selector=reason=Scheduled,involvedObject.name=noted", "-o", "name")
    assert "Scheduled" not in kubectl.attempt("events", "--types=Warning").stdout


def test_top(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("busy", container("one"), container("two")))
    kubectl("wait", "pod/busy", "--for=condition=Ready", "--timeout=30s")
    nodes = kubectl("top", "nodes")
    assert header(nodes) == ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
    assert all(f"host-{number}" in nodes for number in (1, 2, 3))
    eventually(lambda: "busy" in kubectl.attempt("top", "pods").stdout, 60)
    assert {"one", "two"} <= set(kubectl("top", "pod", "busy", "--containers").split())


def test_run_and_delete_again(kubectl: Kubectl) -> None:
    said = kubectl("run", "once", "--image=busybox", "--restart=Never", "--rm", "-i", "--", "echo", "from inside")
    assert "from inside" in said
    assert kubectl.attempt("get", "pod", "once").returncode != 0


def test_nodes_taints_cordon_and_drain(kubectl: Kubectl, eventually: Eventually) -> None:
    node = "host-3"
    try:
        assert "cordoned" in kubectl("cordon", node)
        assert "SchedulingDisabled" in kubectl("get", "node", node)
        kubectl("uncordon", node)
        pinned = deployment("pinned", replicas=1)
        pinned["spec"]["template"]["spec"]["tolerations"] = [{"key": "only", "operator": "Exists"}]
        kubectl("taint", "node", node, "only=here:NoExecute")
        pinned["spec"]["template"]["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node}
        kubectl.apply(pinned, pod("kept-out", nodeSelector={"kubernetes.io/hostname": node}))
        kubectl("rollout", "status", "deployment/pinned", "--timeout=30s")
        eventually(lambda: "untolerated taint" in kubectl("describe", "pod", "kept-out"))
        kubectl("taint", "node", node, "only:NoExecute-")
        kubectl("wait", "pod/kept-out", "--for=condition=Ready", "--timeout=30s")
        refused = kubectl.attempt("drain", node, "--pod-selector=app=kept-out", "--timeout=20s")
        assert "use --force" in refused.stderr
        said = kubectl("drain", node, "--pod-selector=app in (pinned,kept-out)", "--force", "--timeout=40s")
        assert "evicted" in said
        assert "drained" in said
        assert kubectl("get", "pods", "--field-selector", f"spec.nodeName={node}", "-o", "name") == ""
    finally:
        kubectl("uncordon", node)
        kubectl.attempt("taint", "node", node, "only-")


def test_eviction(kubectl: Kubectl) -> None:
    kubectl.apply(pod("precious"))
    kubectl("wait", "pod/precious", "--for=condition=Ready", "--timeout=30s")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "precious"}}
    namespace = kubectl.namespace
    path = f"/api/v1/namespaces/{namespace}/pods/precious/eviction"
    assert '"Success"' in kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))


def test_auth_questions(kubectl: Kubectl, namespace: str) -> None:
    robot = f"--as=system:serviceaccount:{namespace}:robot"
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "r", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "b", "--role=r", f"--serviceaccount={namespace}:robot")
    assert kubectl("auth", "can-i", "delete", "pods").strip() == "yes"
    assert kubectl("auth", "can-i", "list", "pods", robot).strip() == "yes"
    assert kubectl.attempt("auth", "can-i", "delete", "pods", robot).stdout.strip() == "no"
    assert "pods" in kubectl("auth", "can-i", "--list", robot)
    assert "kubernetes-admin" in kubectl("auth", "whoami")
    kubectl("get", "pods", robot)
    assert (
        'cannot list resource "secrets" in API group "" in the namespace'
        in kubectl.attempt("get", "secrets", robot).stderr
    )

"""The official Python client, as programs use it: typed and dynamic calls, watches, streams, leases."""

import base64
import datetime
import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, dynamic, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward, stream

from tests.support.manifests import container, deployment, pod, shell

pytestmark = pytest.mark.e2e
Eventually = Callable[..., Any]


@pytest.fixture(scope="module")
def connection(cluster: Any) -> Iterator[client.ApiClient]:
    """One client for all."""
    with config.new_client_from_config(str(cluster.kubeconfig)) as made:
        yield made


@pytest.fixture
def core(connection: client.ApiClient) -> client.CoreV1Api:
    """core/v1."""
    return client.CoreV1Api(connection)


def refused(call: Callable[[], Any]) -> ApiException:
    with pytest.raises(ApiException) as caught:
        call()
    return caught.value


def is_ready(core: client.CoreV1Api, name: str, namespace: str) -> bool:
    conditions = core.read_namespaced_pod(name, namespace).status.conditions or ()
    return any(each.type == "Ready" and each.status == "True" for each in conditions)


def test_create_read_update_patch_delete(core: client.CoreV1Api, namespace: str) -> None:
    made = core.create_namespaced_config_map(
        namespace, client.V1ConfigMap(metadata=client.V1ObjectMeta(name="c", labels={"a": "b"}), data={"k": "1"})
    )
    assert made.metadata.creation_timestamp.tzinfo is not None
    made.data["k"] = "2"
    newer = core.replace_namespaced_config_map("c", namespace, made)
    assert int(newer.metadata.resource_version) > int(made.metadata.resource_version)
    assert refused(lambda: core.replace_namespaced_config_map("c", namespace, made)).status == 409
    patched = core.patch_namespaced_config_map("c", namespace, {"data": {"x": "y"}})
    assert patched.data == {"k": "2", "x": "y"}
    found = core.list_namespaced_config_map(namespace, label_selector="a=b", field_selector="metadata.name=c")
    assert [each.metadata.name for each in found.items] == ["c"]
    core.delete_namespaced_config_map("c", namespace)
    gone = refused(lambda: core.read_namespaced_config_map("c", namespace))
    assert (gone.status, gone.reason) == (404, "Not Found")


def test_lists_come_in_pages(core: client.CoreV1Api, namespace: str) -> None:
    for number in range(5):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": f"c{number}", "labels": {"page": "me"}}})
    first = core.list_namespaced_config_map(namespace, label_selector="page=me", limit=2)
    assert len(first.items) == 2
    core.create_namespaced_config_map(namespace, {"metadata": {"name": "late", "labels": {"page": "me"}}})
    names, token = [each.metadata.name for each in first.items], first.metadata._continue
    while token:
        page = core.list_namespaced_config_map(namespace, label_selector="page=me", limit=2, _continue=token)
        names += [each.metadata.name for each in page.items]
        token = page.metadata._continue
    assert names[:5] == [f"c{number}" for number in range(5)]


def test_watch_resumes_where_it_was(core: client.CoreV1Api, namespace: str) -> None:
    listed = core.list_namespaced_config_map(namespace)
    for name in ("one", "two"):
        core.create_namespaced_config_map(namespace, {"metadata": {"name": name}})
    core.patch_namespaced_config_map("one", namespace, {"data": {"a": "b"}})
    core.delete_namespaced_config_map("two", namespace)

    def events(since: str, count: int) -> list[tuple[str, str, str]]:
        seen = []
        watching = watch.Watch()
        for event in watching.stream(
            core.list_namespaced_config_map, namespace, resource_version=since, timeout_seconds=10
        ):
            found = event["object"]
            if found.metadata.name != "kube-root-ca.crt":
                seen.append((event["type"], found.metadata.name, found.metadata.resource_version))
            if len(seen) == count:
                watching.stop()
        return seen

    every = events(listed.metadata.resource_version, 4)
    assert [each[:2] for each in every] == [
        ("ADDED", "one"),
        ("ADDED", "two"),
        ("MODIFIED", "one"),
        ("DELETED", "two"),
    ]
    assert events(every[1][2], 2) == every[2:]


def test_a_watch_is_told_when_its_version_is_too_old(core: client.CoreV1Api, namespace: str) -> None:
    with pytest.raises(ApiException) as caught:
        for _ in watch.Watch().stream(
            core.list_namespaced_config_map, namespace, resource_version="1", timeout_seconds=5
        ):
            pass
    assert caught.value.status == 410


def test_a_deployment_from_start_to_end(connection: client.ApiClient, namespace: str, eventually: Eventually) -> None:
    apps = client.AppsV1Api(connection)
    apps.create_namespaced_deployment(namespace, deployment("d", replicas=2))
    eventually(lambda: apps.read_namespaced_deployment_status("d", namespace).status.ready_replicas == 2)
    apps.patch_namespaced_deployment_scale("d", namespace, {"spec": {"replicas": 1}})
    eventually(lambda: apps.read_namespaced_deployment_status("d", namespace).status.ready_replicas == 1)
    assert apps.read_namespaced_deployment_scale("d", namespace).spec.replicas == 1
    apps.delete_namespaced_deployment("d", namespace, propagation_policy="Foreground")
    eventually(lambda: not client.CoreV1Api(connection).list_namespaced_pod(namespace).items)


def test_exec_logs_and_attach(core: client.CoreV1Api, namespace: str, eventually: Eventually) -> None:
    core.create_namespaced_pod(namespace, pod("p", shell("echo hello; while read x; do echo got $x; done", stdin=True)))
    eventually(lambda: is_ready(core, "p", namespace))
    call = core.connect_get_namespaced_pod_exec
    flags = {"stderr": True, "stdin": False, "stdout": True, "tty": False}
    assert stream(call, "p", namespace, command=["echo", "hi"], **flags) == "hi\n"
    running = stream(call, "p", namespace, command=["sh"], _preload_content=False, **{**flags, "stdin": True})
    running.write_stdin("echo out; echo err >&2; exit 3\n")
    running.run_forever(timeout=15)
    assert (running.read_stdout(), running.read_stderr(), running.returncode) == ("out\n", "err\n", 3)
    attached = stream(
        core.connect_get_namespaced_pod_attach, "p", namespace, _preload_content=False, **{**flags, "stdin": True}
    )
    attached.write_stdin("this\n")
    assert attached.readline_stdout(timeout=10) == "got this"
    attached.close()
    eventually(lambda: core.read_namespaced_pod_log("p", namespace) == "hello\ngot this\n")
    lines = core.read_namespaced_pod_log("p", namespace, follow=True, _preload_content=False)
    assert next(iter(lines)).startswith(b"hello")
    lines.release_conn()


def test_port_forward(core: client.CoreV1Api, namespace: str, eventually: Eventually) -> None:
    script = "mkdir /w; echo forwarded > /w/index.html; exec httpd -f -p 8080 -h /w"
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    core.create_namespaced_pod(namespace, pod("p", shell(script, readinessProbe=probe)))
    eventually(lambda: is_ready(core, "p", namespace))
    forward = portforward(core.connect_get_namespaced_pod_portforward, "p", namespace, ports="8080")
    connected = forward.socket(8080)
    connected.settimeout(10)
    connected.sendall(b"GET / HTTP/1.0\r\n\r\n")
    received = b""
    while chunk := connected.recv(4096):
        received += chunk
    assert received.endswith(b"forwarded\n")
    assert forward.error(8080) is None


def test_dynamic_client_knows_every_kind(connection: client.ApiClient, namespace: str) -> None:
    kinds = dynamic.DynamicClient(connection)
    policies = kinds.resources.get(api_version="networking.k8s.io/v1", kind="NetworkPolicy")
    body = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "closed"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }
    policies.create(body=body, namespace=namespace)
    assert policies.get(name="closed", namespace=namespace).spec.policyTypes == ["Ingress"]
    applied = policies.server_side_apply(
        body={**body, "metadata": {"name": "closed", "labels": {"a": "b"}}}, namespace=namespace, field_manager="test"
    )
    assert applied.metadata.labels.a == "b"
    segments = kinds.resources.get(api_version="network.sphere.io/v1", kind="Segment")
    assert segments.get(name=namespace).spec.vni > 4096


def test_leases_elect_one_leader(connection: client.ApiClient, namespace: str) -> None:
    leases = client.CoordinationV1Api(connection)
    now = datetime.datetime.now(datetime.UTC)
    lease = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 15}}
    leases.create_namespaced_lease(namespace, lease)
    seen = leases.read_namespaced_lease("leader", namespace)
    won: list[str] = []

    def run(name: str) -> None:
        spec = {"holderIdentity": name, "leaseDurationSeconds": 15, "acquireTime": now.isoformat(), "renewTime": None}
        body = {"metadata": {"name": "leader", "resourceVersion": seen.metadata.resource_version}, "spec": spec}
        try:
            leases.replace_namespaced_lease("leader", namespace, body)
            won.append(name)
        except ApiException as err:
            if err.status != 409:
                won.append(str(err))

    threads = [threading.Thread(target=run, args=(f"candidate-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert leases.read_namespaced_lease("leader", namespace).spec.holder_identity == won[0]


def test_secrets_and_events(core: client.CoreV1Api, namespace: str, eventually: Eventually) -> None:
    core.create_namespaced_secret(namespace, {"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert base64.b64decode(core.read_namespaced_secret("s", namespace).data["a"]) == b"b"
    core.create_namespaced_pod(namespace, pod("p", container(), nodeSelector={"no": "such"}))

    def told() -> bool:
        events = core.list_namespaced_event(namespace, field_selector="involvedObject.name=p").items
        return any(each.reason == "FailedScheduling" and each.type == "Warning" for each in events)

    eventually(told)


def test_a_service_account_may_what_its_role_says(cluster: Any, connection: client.ApiClient, namespace: str) -> None:
    core, rbac = client.CoreV1Api(connection), client.RbacAuthorizationV1Api(connection)
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "robot"}})
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "r"}, "rules": [rule]})
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    rbac.create_namespaced_role_binding(
        namespace, {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": reference}
    )
    token = core.create_namespaced_service_account_token("robot", namespace, {"spec": {"expirationSeconds": 600}})
    robot = client.CoreV1Api(client.ApiClient(_with_token(cluster, token.status.token)))
    assert robot.list_namespaced_pod(namespace).items == []
    assert refused(lambda: robot.list_namespaced_secret(namespace)).status == 403
    assert refused(lambda: robot.list_namespaced_pod("default")).status == 403
    assert refused(lambda: robot.create_namespaced_pod(namespace, pod("p"))).status == 403
    rbac.delete_namespaced_role_binding("b", namespace)
    assert refused(lambda: robot.list_namespaced_pod(namespace)).status == 403
    core.delete_namespaced_service_account("robot", namespace)
    assert refused(lambda: robot.list_namespaced_pod(namespace)).status == 401


def _with_token(cluster: Any, token: str) -> client.Configuration:
    settings = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=settings)
    settings.cert_file = settings.key_file = None
    settings.api_key = {"authorization": f"Bearer {token}"}
    return settings


def test_a_person_with_a_certificate(
    cluster: Any, connection: client.ApiClient, namespace: str, tmp_path: Path
) -> None:
    pki = cluster.layout.run / "pki"
    key, request, cert = tmp_path / "jane.key", tmp_path / "jane.csr", tmp_path / "jane.crt"
    for words in (
        ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/O=developers/CN=jane"],
        ["x509", "-req", "-in", request, "-CA", pki / "ca.crt", "-CAkey", pki / "ca.key", "-set_serial", "99",
         "-days", "1", "-out", cert],
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
    settings = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=settings)
    settings.cert_file, settings.key_file = str(cert), str(key)
    jane = client.ApiClient(settings)
    me = client.AuthenticationV1Api(jane).create_self_subject_review({}).status.user_info
    assert (me.username, me.groups) == ("jane", ["developers", "system:authenticated"])
    assert refused(lambda: client.CoreV1Api(jane).list_namespaced_pod(namespace)).status == 403
    rbac = client.RbacAuthorizationV1Api(connection)
    subject = {"kind": "Group", "name": "developers", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    rbac.create_namespaced_role_binding(
        namespace, {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": reference}
    )
    client.CoreV1Api(jane).create_namespaced_config_map(namespace, {"metadata": {"name": "hers"}})
    denied = refused(lambda: client.CoreV1Api(jane).list_node())
    message = json.loads(denied.body)["message"]
    assert 'User "jane" cannot list resource "nodes" in API group "" at the cluster scope' in message

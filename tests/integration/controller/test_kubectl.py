"""kubectl against a real API server on a real etcd."""

import json

import pytest

from tests.integration.conftest import ApiServer

pytestmark = pytest.mark.integration

CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {name: one, labels: {app: x}}
data: {a: "1"}
"""


async def test_create_get_list_delete(api_server: ApiServer) -> None:
    assert "configmap/one created" in await api_server.kubectl("create", "-f", "-", stdin=CONFIG_MAP)
    got = json.loads(await api_server.kubectl("get", "configmap", "one", "-o", "json"))
    assert got["data"] == {"a": "1"}
    assert got["metadata"]["resourceVersion"].isdigit()
    assert "one" in await api_server.kubectl("get", "cm", "-l", "app=x")
    assert "deleted" in await api_server.kubectl("delete", "cm", "one")
    refused = await api_server.kubectl("get", "cm", "one", check=False)
    assert 'Error from server (NotFound): configmaps "one" not found' in refused


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: busybox, env: [{name: A, value: "1"}]}]
"""


async def test_apply_patch_scale_and_refuse(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    assert "created" in await kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    assert "unchanged" in await kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    changed = DEPLOYMENT.replace('{name: A, value: "1"}', '{name: B, value: "2"}').replace("busybox", "busybox:2")
    assert "configured" in await kubectl("apply", "-f", "-", stdin=changed)
    await kubectl("scale", "deployment", "web", "--replicas=5")
    await kubectl(
        "patch", "deployment", "web", "--type=json", "-p", '[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]'
    )
    got = json.loads(await kubectl("get", "deployment", "web", "-o", "json"))
    assert got["spec"]["replicas"] == 5
    assert got["metadata"]["generation"] == 3
    assert got["spec"]["template"]["spec"]["containers"][0]["env"] == [{"name": "B", "value": "2"}]
    refused = await kubectl("patch", "deployment", "web", "-p", '{"spec":{"replicas":-1}}', check=False)
    assert 'The Deployment "web" is invalid: spec.replicas: Invalid value: -1' in refused


async def test_server_side_apply_conflicts_are_named(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    assert "serverside-applied" in await kubectl("apply", "--server-side", "-f", "-", stdin=CONFIG_MAP)
    other = CONFIG_MAP.replace('"1"', '"2"')
    arguments = ("apply", "--server-side", "--field-manager=other", "-f", "-")
    refused = await kubectl(*arguments, stdin=other, check=False)
    assert 'Apply failed with 1 conflict: conflict with "kubectl": .data.a' in refused
    assert "serverside-applied" in await kubectl(*arguments, "--force-conflicts", stdin=other)


async def test_what_is_gone_or_of_another_kind_is_not_applied(api_server: ApiServer) -> None:
    applied = CONFIG_MAP.replace("name: one", "name: one, uid: 11111111-1111-1111-1111-111111111111")
    refused = await api_server.kubectl("apply", "--server-side", "-f", "-", stdin=applied, check=False)
    assert "uid mismatch" in refused
    path, kind = "/api/v1/namespaces/default/configmaps/one?fieldManager=m", "application/apply-patch+yaml"
    status, text = await api_server.request("PATCH", path, CONFIG_MAP.replace("ConfigMap", "Secret"), kind)
    assert (status, "cannot be handled as a ConfigMap" in text) == (400, True)
    assert "NotFound" in await api_server.kubectl("get", "configmap", "one", check=False)


async def test_health_is_told_check_by_check(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    assert await kubectl("get", "--raw", "/readyz/etcd") == "ok"
    assert "[+]etcd ok" in await kubectl("get", "--raw", "/readyz?verbose")
    assert "etcd" not in await kubectl("get", "--raw", "/readyz?verbose&exclude=etcd")
    assert "NotFound" in await kubectl("get", "--raw", "/healthz/tea", check=False)


async def test_typed_clients_send_protobuf(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    assert "namespace/made created" in await kubectl("create", "namespace", "made")
    assert "created" in await kubectl("create", "configmap", "cm", "--from-literal=a=b", "-n", "made")
    assert "created" in await kubectl("create", "deployment", "d", "--image=busybox", "--port=80", "-n", "made")
    got = json.loads(await kubectl("get", "deployment", "d", "-n", "made", "-o", "json"))
    assert got["spec"]["template"]["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    again = await kubectl("create", "namespace", "made", check=False)
    assert 'namespaces "made" already exists' in again


async def test_unknown_fields_follow_the_validation_mode(api_server: ApiServer) -> None:
    wrong = CONFIG_MAP.replace("\ndata:", "\ndato:")
    strict = await api_server.kubectl("create", "--validate=strict", "-f", "-", stdin=wrong, check=False)
    assert 'strict decoding error: unknown field "dato"' in strict
    assert "created" in await api_server.kubectl("create", "--validate=warn", "-f", "-", stdin=wrong)


async def test_finalizers_hold_a_deletion(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    held = CONFIG_MAP.replace("name: one", "name: one, finalizers: [example.com/hold]")
    await kubectl("create", "-f", "-", stdin=held)
    await kubectl("delete", "configmap", "one", "--wait=false")
    assert "deletionTimestamp" in await kubectl("get", "configmap", "one", "-o", "yaml")
    await kubectl("patch", "configmap", "one", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    assert "NotFound" in await kubectl("get", "configmap", "one", check=False)


async def test_explain_and_api_resources(api_server: ApiServer) -> None:
    assert "DeploymentStrategy" in await api_server.kubectl("explain", "deployment.spec.strategy")
    assert "deployments" in await api_server.kubectl("api-resources")


async def test_owners_of_fields_can_be_forgotten_and_moved(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    managers = ("get", "cm", "one", "-o", "jsonpath={.metadata.managedFields[*].manager}", "--show-managed-fields")
    await kubectl("apply", "-f", "-", stdin=CONFIG_MAP)
    assert await kubectl(*managers) == "kubectl-client-side-apply"
    await kubectl("apply", "--server-side", "-f", "-", stdin=CONFIG_MAP.replace('"1"', '"2"'))
    assert "kubectl-client-side-apply" not in (await kubectl(*managers)).split()
    await kubectl("patch", "cm", "one", "--type=merge", "-p", '{"metadata":{"managedFields":[{}]}}')
    assert await kubectl(*managers) == ""


async def test_one_object_is_shown_under_two_versions_and_groups(api_server: ApiServer) -> None:
    kubectl = api_server.kubectl
    await kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    await kubectl("autoscale", "deployment", "web", "--max=5", "--cpu-percent=70")
    assert "cpu: <unknown>/70%" in await kubectl("get", "hpa")
    older = json.loads(await kubectl("get", "horizontalpodautoscalers.v1.autoscaling", "web", "-o", "json"))
    assert (older["apiVersion"], older["spec"]["targetCPUUtilizationPercentage"]) == ("autoscaling/v1", 70)
    await kubectl("patch", "horizontalpodautoscalers.v1.autoscaling", "web", "-p", '{"spec":{"maxReplicas":6}}')
    newer = json.loads(await kubectl("get", "horizontalpodautoscalers.v2.autoscaling", "web", "-o", "json"))
    assert (newer["apiVersion"], newer["spec"]["maxReplicas"]) == ("autoscaling/v2", 6)
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Act",
        "reason": "Why",
        "note": "words",
        "type": "Normal",
    }
    await kubectl("create", "-f", "-", stdin=json.dumps(event))
    assert "words" in await kubectl("get", "events", "--field-selector", "involvedObject.name=p")
    picked = await kubectl("get", "events.events.k8s.io", "--field-selector", "regarding.name=p", "-o", "json")
    [found] = json.loads(picked)["items"]
    assert (found["apiVersion"], found["note"]) == ("events.k8s.io/v1", "words")
    await kubectl("delete", "events.events.k8s.io", "e")
    assert "words" not in await kubectl("get", "events")

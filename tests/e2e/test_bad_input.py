"""What is wrong is refused with the API's status code and reason, and a message that names the cause."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kubernetes import client, config

from tests.support.manifests import config_map, container, deployment, pod, service

pytestmark = pytest.mark.e2e
Kubectl = Any
Object = dict[str, Any]
Eventually = Callable[..., Any]


class Api:
    """Requests as no well-behaved client sends them, with the admin's certificate."""

    def __init__(self, cluster: Any, *, anonymous: bool = False) -> None:
        settings = client.Configuration()
        config.load_kube_config(str(cluster.kubeconfig), client_configuration=settings)
        if anonymous:
            settings.cert_file = settings.key_file = None
        self.host = settings.host
        self.pool = client.ApiClient(settings).rest_client.pool_manager

    def raw(
        self, method: str, path: str, body: bytes = b"", kind: str = "application/json", **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        words = {"Accept": "application/json", "Content-Type": kind, **headers}
        answer = self.pool.request(method, self.host + path, body=body, headers=words, timeout=20, retries=False)
        return answer.status, answer.data

    def __call__(self, method: str, path: str, body: Any = None) -> Object:
        """The answer, or the Status of a refusal, whose code is the response's."""
        code, data = self.raw(method, path, b"" if body is None else json.dumps(body).encode())
        answer: Object = json.loads(data)
        if code >= 400:
            assert (answer["kind"], answer["status"], answer["code"]) == ("Status", "Failure", code)
        return answer


@pytest.fixture(scope="module")
def api(cluster: Any) -> Api:
    """What speaks to the API."""
    return Api(cluster)


def create(api: Api, namespace: str, obj: Object, **query: str) -> Object:
    """POST an object to where its kind lives."""
    group, plural = (
        ("apis/apps/v1", "deployments") if obj["kind"] == "Deployment" else ("api/v1", f"{obj['kind'].lower()}s")
    )
    path = f"/{group}/namespaces/{namespace}/{plural}"
    words = "&".join(f"{key}={value}" for key, value in query.items())
    return api("POST", f"{path}?{words}" if words else path, obj)


def changed(obj: Object, path: str, value: Any) -> Object:
    """A copy of ``obj`` with the field at a dotted path set."""
    copy: Object = json.loads(json.dumps(obj))
    *steps, last = path.split(".")
    place: Any = copy
    for step in steps:
        place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
    place[last] = value
    return copy


POD, DEPLOYMENT, SERVICE, CONFIG = pod("x"), deployment("x"), service("x", "x", 80, 80), config_map("x")
FIRST = "spec.containers.0"
INVALID = [
    (changed(POD, "metadata.name", "Bad_Name"), 'metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123'),
    (changed(POD, "metadata.name", ""), "metadata.name: Required value: name or generateName is required"),
    (changed(POD, "metadata.labels", {"a b": "c"}), 'metadata.labels: Invalid value: "a b"'),
    (changed(POD, "spec.containers", []), "spec.containers: Required value"),
    (changed(POD, f"{FIRST}.name", "UPPER"), 'spec.containers[0].name: Invalid value: "UPPER"'),
    (changed(POD, f"{FIRST}.image", ""), "spec.containers[0].image: Required value"),
    (changed(POD, f"{FIRST}.ports", [{"containerPort": 70000}]), "containerPort: Invalid value: 70000"),
    (changed(POD, f"{FIRST}.imagePullPolicy", "Often"), 'imagePullPolicy: Unsupported value: "Often"'),
    (changed(POD, "spec.restartPolicy", "Sometimes"), 'spec.restartPolicy: Unsupported value: "Sometimes"'),
    (
        changed(POD, f"{FIRST}.volumeMounts", [{"name": "no", "mountPath": "/x"}]),
        'volumeMounts[0].name: Not found: "no"',
    ),
    (changed(POD, f"{FIRST}.env", [{"name": "=", "value": "x"}]), "env[0].name: Invalid value"),
    (changed(POD, f"{FIRST}.resources", {"requests": {"cpu": "-1"}}), 'requests[cpu]: Invalid value: "-1"'),
    (
        changed(POD, f"{FIRST}.resources", {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        "must be less than or equal to cpu limit",
    ),
    (changed(POD, "spec.containers", [container(), container()]), 'spec.containers[1].name: Duplicate value: "c"'),
    (
        changed(POD, f"{FIRST}.livenessProbe", {"periodSeconds": 1}),
        "livenessProbe: Required value: must specify a handler",
    ),
    (
        changed(POD, f"{FIRST}.livenessProbe", {"exec": {"command": ["x"]}, "timeoutSeconds": -1}),
        "timeoutSeconds: Invalid value: -1",
    ),
    (changed(POD, "spec.activeDeadlineSeconds", 0), "must be between 1 and 2147483647, inclusive"),
    (changed(POD, "spec.priorityClassName", "nope"), "no PriorityClass with name nope was found"),
    (changed(DEPLOYMENT, "spec.template.metadata.labels", {"app": "y"}), "`selector` does not match template `labels`"),
    (
        changed(DEPLOYMENT, "spec.selector", {}),
        "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
    ),
    (changed(DEPLOYMENT, "spec.replicas", -1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
    (
        changed(DEPLOYMENT, "spec.template.spec.restartPolicy", "Never"),
        'Unsupported value: "Never": supported values: "Always"',
    ),
    (
        changed(DEPLOYMENT, "spec.strategy", {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}),
        "may not be 0 when `maxSurge` is 0",
    ),
    (changed(SERVICE, "spec.ports", []), "spec.ports: Required value"),
    (changed(SERVICE, "spec.ports.0.port", 0), "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535"),
    (changed(SERVICE, "spec.type", "Magic"), 'spec.type: Unsupported value: "Magic"'),
    (changed(SERVICE, "spec.clusterIP", "1.2.3.4"), "is not in the valid range"),
    (changed(SERVICE, "metadata.name", "1x"), 'metadata.name: Invalid value: "1x": a DNS-1035 label'),
    (changed(CONFIG, "data", {"a/b": "x"}), 'data[a/b]: Invalid value: "a/b"'),
    (changed(CONFIG, "data", {"x": "y" * (1 << 20) + "y"}), "Too long: may not be more than 1048576 bytes"),
]


@pytest.fixture(scope="module")
def shared_namespace(cluster: Any, api: Api) -> Iterator[str]:
    """Nothing is ever made in it."""
    name = "t-bad-input"
    api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    api("DELETE", f"/api/v1/namespaces/{name}")


@pytest.mark.parametrize(("obj", "message"), INVALID, ids=[message[:40] for _, message in INVALID])
def test_impossible_values_are_invalid(api: Api, shared_namespace: str, obj: Object, message: str) -> None:
    status = create(api, shared_namespace, obj)
    if "PriorityClass" in message:
        assert (status["code"], status["reason"]) == (403, "Forbidden")
    else:
        assert (status["code"], status["reason"]) == (422, "Invalid"), status
        assert status["details"]["kind"] == obj["kind"]
        assert all({"reason", "message", "field"} <= set(cause) for cause in status["details"]["causes"])
    assert message in status["message"]
    plural = f"{obj['kind'].lower()}s"
    group = "apis/apps" if obj["kind"] == "Deployment" else "api"
    assert not [
        each
        for each in api("GET", f"/{group}/v1/namespaces/{shared_namespace}/{plural}")["items"]
        if each["metadata"]["name"] not in ("kube-root-ca.crt",)
    ]


WRONG = [
    (changed(POD, "spec.containers", "c"), "cannot unmarshal string into Go struct field PodSpec.spec.containers"),
    (
        changed(DEPLOYMENT, "spec.replicas", "three"),
        "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas",
    ),
    (
        changed(POD, "metadata.labels", {"a": 1}),
        "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels",
    ),
    (changed(POD, f"{FIRST}.resources", {"limits": {"cpu": "much"}}), "quantities must match the regular expression"),
    (changed(POD, "kind", "Service"), "cannot be handled as"),
    (changed(POD, "apiVersion", "v2"), "does not match the expected API version"),
    ({**changed(POD, "metadata.namespace", "elsewhere")}, "does not match the namespace"),
]


@pytest.mark.parametrize(("obj", "message"), WRONG, ids=[message[:40] for _, message in WRONG])
def test_wrong_types_are_bad_requests(api: Api, shared_namespace: str, obj: Object, message: str) -> None:
    path = "deployments" if "replicas" in json.dumps(obj) else "pods"
    group = "apis/apps" if path == "deployments" else "api"
    status = api("POST", f"/{group}/v1/namespaces/{shared_namespace}/{path}", obj)
    assert (status["code"], status["reason"]) == (400, "BadRequest")
    assert message in status["message"]


def test_unknown_fields_are_refused_warned_about_or_dropped(api: Api, shared_namespace: str, kubectl: Kubectl) -> None:
    odd = changed(POD, f"{FIRST}.imagee", "x")
    refused = create(api, shared_namespace, odd, fieldValidation="Strict", dryRun="All")
    assert refused["code"] == 400
    assert 'strict decoding error: unknown field "spec.containers[0].imagee"' in refused["message"]
    made = create(api, shared_namespace, odd, fieldValidation="Ignore", dryRun="All")
    assert "imagee" not in made["spec"]["containers"][0]
    flags = ("create", "--dry-run=server", "-f", "-")
    warned = kubectl.attempt(*flags, "--validate=warn", stdin=json.dumps(odd))
    assert warned.returncode == 0
    assert 'Warning: unknown field "spec.containers[0].imagee"' in warned.stderr
    assert 'unknown field "spec.containers[0].imagee"' in kubectl.attempt(*flags, stdin=json.dumps(odd)).stderr


@pytest.mark.parametrize("body", [b"{", b"[1,2]", b'"text"', b"null", b"", b"\xff\xfe", b'{"a":NaN}', b"[" * 20000])
def test_bodies_that_are_no_object(api: Api, body: bytes, shared_namespace: str) -> None:
    done = api.raw("POST", f"/api/v1/namespaces/{shared_namespace}/pods", body)
    assert done[0] == 400, done
    assert json.loads(done[1])["reason"] == "BadRequest"


def test_odd_requests(api: Api, shared_namespace: str) -> None:
    pods = f"/api/v1/namespaces/{shared_namespace}/pods"
    big = json.dumps(changed(CONFIG, "data", {"x": "y" * (4 << 20)})).encode()
    for wanted, reason, request in (
        (413, "RequestEntityTooLarge", ("POST", f"/api/v1/namespaces/{shared_namespace}/configmaps", big)),
        (415, "UnsupportedMediaType", ("POST", pods, b"x", "text/plain")),
        (404, "NotFound", ("GET", "/api/v1/nonsense")),
        (404, "NotFound", ("GET", "/apis/nope/v1/things")),
        (404, "NotFound", ("GET", f"{pods}/x/nonsense")),
        (405, "MethodNotAllowed", ("POST", f"{pods}/x", b"{}")),
        (405, "MethodNotAllowed", ("PUT", pods, b"{}")),
        (400, "BadRequest", ("GET", f"{pods}?labelSelector=a%20in%20(")),
        (400, "BadRequest", ("GET", f"{pods}?fieldSelector=nope=1")),
        (400, "BadRequest", ("GET", f"{pods}?limit=x")),
        (400, "BadRequest", ("GET", f"{pods}?continue=garbage")),
        (400, "BadRequest", ("GET", f"{pods}?resourceVersion=abc")),
        (400, "BadRequest", ("GET", f"{pods}?watch=true&resourceVersion=abc")),
        (404, "NotFound", ("DELETE", f"{pods}/nope")),
        (404, "NotFound", ("PATCH", f"{pods}/nope", b"{}", "application/merge-patch+json")),
        (400, "BadRequest", ("PATCH", f"{pods}/nope", b"{", "application/merge-patch+json")),
        (415, "UnsupportedMediaType", ("PATCH", f"{pods}/nope", b"{}", "application/json")),
        (400, "BadRequest", ("DELETE", f"{pods}/nope?gracePeriodSeconds=x")),
    ):
        status, body = api.raw(*request)
        assert (status, json.loads(body)["reason"]) == (wanted, reason), (request[:2], body[:300])
    assert api.raw("GET", f"{pods}/%00")[0] in (400, 404)


def test_conflicts_and_duplicates(api: Api, kubectl: Kubectl, namespace: str) -> None:
    assert create(api, namespace, CONFIG)["metadata"]["uid"]
    twice = create(api, namespace, CONFIG)
    assert (twice["code"], twice["reason"], twice["message"]) == (409, "AlreadyExists", 'configmaps "x" already exists')
    path = f"/api/v1/namespaces/{namespace}/configmaps/x"
    seen = api("GET", path)
    assert api("PUT", path, {**seen, "data": {"a": "1"}})["data"] == {"a": "1"}
    late = api("PUT", path, {**seen, "data": {"a": "2"}})
    assert (late["code"], late["reason"]) == (409, "Conflict")
    other = api("DELETE", path, {"preconditions": {"uid": "another"}})
    assert (other["code"], other["reason"]) == (409, "Conflict")
    missing = create(api, "no-such-namespace", CONFIG)
    assert (missing["code"], missing["message"]) == (404, 'namespaces "no-such-namespace" not found')
    assert api("GET", path)["data"] == {"a": "1"}


def test_immutable_fields_stay(kubectl: Kubectl) -> None:
    kubectl.apply(
        deployment("d", replicas=0), service("s", "d", 80, 80), pod("p"), {**config_map("c"), "immutable": True}
    )
    for words, message in (
        (("deployment", "d", "-p", '{"spec":{"selector":{"matchLabels":{"x":"y"}}}}'), "field is immutable"),
        (("service", "s", "-p", '{"spec":{"clusterIP":"10.96.99.99"}}'), "may not change once set"),
        (("pod", "p", "-p", '{"spec":{"nodeName":"host-9"}}'), "pod updates may not change fields other than"),
        (("configmap", "c", "-p", '{"data":{"a":"b"}}'), "field is immutable when `immutable` is set"),
        (("pod", "p", "--type=merge", "-p", '{"metadata":{"uid":"x"}}'), "Precondition failed: UID in precondition: x"),
        (("pod", "p", "--type=merge", "-p", '{"metadata":{"name":"other"}}'), "name"),
    ):
        refused = kubectl.attempt("patch", *words)
        assert refused.returncode == 1
        assert message in refused.stderr, (words, refused.stderr)


def test_kubectl_prints_refusals_well(kubectl: Kubectl) -> None:
    for manifest, message in (
        ("a: b: c", "error converting YAML to JSON: yaml: mapping values are not allowed in this context"),
        ('{"apiVersion":"v1","metadata":{"name":"x"}}', "kind not set"),
        ('{"apiVersion":"v1","kind":"Nope","metadata":{"name":"x"}}', 'no matches for kind "Nope" in version "v1"'),
        (
            '{"apiVersion":"apps/v9","kind":"Deployment","metadata":{"name":"x"}}',
            'no matches for kind "Deployment" in version "apps/v9"',
        ),
        (json.dumps(changed(DEPLOYMENT, "spec", {})), "spec.selector: Required value"),
        (json.dumps(changed(POD, f"{FIRST}.foo", 1)), 'unknown field "spec.containers[0].foo"'),
    ):
        refused = kubectl.attempt("apply", "-f", "-", stdin=manifest)
        assert refused.returncode == 1
        assert message in refused.stderr


def test_what_cannot_be_scheduled_says_why(kubectl: Kubectl, eventually: Eventually) -> None:
    huge = container(resources={"requests": {"cpu": "1000"}})
    kubectl.apply(
        pod("huge", huge),
        pod("picky", nodeSelector={"no": "such"}),
        pod("fat", container(resources={"requests": {"memory": "9Ti"}})),
    )
    for name, words in (
        ("huge", "0/3 nodes are available: 3 Insufficient cpu"),
        ("fat", "3 Insufficient memory"),
        ("picky", "3 node(s) didn't match Pod's node affinity/selector"),
    ):
        eventually(lambda name=name, words=words: words in kubectl("events", "--for", f"pod/{name}"))
        found = kubectl.get("pod", name)
        assert found["status"]["phase"] == "Pending"
        condition = next(each for each in found["status"]["conditions"] if each["type"] == "PodScheduled")
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert words in condition["message"]


def test_references_to_what_is_not_there(kubectl: Kubectl, eventually: Eventually) -> None:
    missing = [{"name": "v", "secret": {"secretName": "nope"}}]
    kubectl.apply(pod("p", container(volumeMounts=[{"name": "v", "mountPath": "/v"}]), volumes=missing))
    eventually(lambda: 'MountVolume.SetUp failed for volume "v" : secret "nope" not found' in kubectl("events"))
    no_account = kubectl.attempt("run", "q", "--image=busybox", '--overrides={"spec":{"serviceAccountName":"nobody"}}')
    assert "service account" in no_account.stderr
    assert "nobody" in no_account.stderr


def test_nobody_gets_in_without_a_name(cluster: Any) -> None:
    nobody = Api(cluster, anonymous=True)
    code, body = nobody.raw("GET", "/api/v1/pods")
    assert code == 403
    assert 'User "system:anonymous" cannot list resource "pods"' in json.loads(body)["message"]
    code, body = nobody.raw("GET", "/api/v1/pods", Authorization="Bearer x.y.z")
    assert (code, json.loads(body)["reason"]) == (401, "Unauthorized")
    assert nobody.raw("GET", "/healthz")[0] == 200


def test_roles_cannot_be_used_to_gain_rights(kubectl: Kubectl, namespace: str) -> None:
    robot = f"--as=system:serviceaccount:{namespace}:robot"
    kubectl("create", "serviceaccount", "robot")
    kubectl("create", "role", "manager", "--verb=get,create,update", "--resource=roles,rolebindings")
    kubectl("create", "rolebinding", "manager", "--role=manager", f"--serviceaccount={namespace}:robot")
    refused = kubectl.attempt("create", "role", "more", "--verb=get", "--resource=secrets", robot)
    assert "is attempting to grant RBAC permissions not currently held" in refused.stderr
    bound = kubectl.attempt("create", "rolebinding", "more", "--clusterrole=admin", "--user=me", robot)
    assert "is attempting to grant RBAC permissions not currently held" in bound.stderr
    admin = kubectl.attempt("get", "pods", "--as=kubernetes-admin", "--as-group=system:masters", robot)
    assert admin.returncode != 0 or re.search("No resources", admin.stderr)


def test_a_node_may_only_what_is_its_own(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    as_node = ("--as=system:node:host-1", "--as-group=system:nodes")
    kubectl.apply(pod("here", nodeName="host-1"), pod("there", nodeName="host-2"))
    kubectl("create", "secret", "generic", "private", "--from-literal=a=b")
    for words in (
        ("get", "secret", "private"),
        ("get", "secrets"),
        ("delete", "pod", "there", "--wait=false"),
        ("label", "node", "host-2", "x=y"),
        ("taint", "node", "host-2", "x=y:NoSchedule"),
        ("delete", "node", "host-1"),
        ("create", "configmap", "c"),
    ):
        refused = kubectl.attempt(*words, *as_node)
        assert refused.returncode != 0, words
        assert "orbidden" in refused.stderr, (words, refused.stderr)
    kubectl("get", "node", "host-1", *as_node)
    kubectl("delete", "pod", "here", "--wait=false", *as_node)

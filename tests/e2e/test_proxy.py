"""HTTP to pods and services through the API, for those who reach nothing else of the cluster."""

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.network_pods import Net, new_net, policy, server_pod

pytestmark = pytest.mark.e2e
WEB = {"tier": "web"}
PORTS = [{"name": "http", "containerPort": 80}]


@pytest.fixture(scope="module")
def net(cluster: Cluster) -> Iterator[Net]:
    """A web server on each host, behind ``web``."""
    with new_net(cluster, "proxy") as found:
        pods = []
        for name, host in zip(("one", "two", "three"), cluster.hosts, strict=True):
            pod = server_pod(name, None, WEB, ports=PORTS, nodeName=host)
            page = f"mkdir /www && echo {name} > /www/name && exec busybox httpd -f -h /www"
            pod["spec"]["containers"][0] |= {"command": ["sh", "-c", page], "args": []}
            pod["spec"]["containers"][0]["readinessProbe"] = {
                "httpGet": {"port": 80, "path": "/name"},
                "periodSeconds": 1,
            }
            pods.append(pod)
        found.run(*pods)
        spec = {"selector": WEB, "ports": [{"name": "http", "port": 8000, "targetPort": "http"}]}
        found.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
        found.realized("service/web")
        yield found


def asked(net: Net, path: str) -> str:
    return net.kubectl("get", "--raw", f"/api/v1/namespaces/{net.namespace}/{path}").strip()


def test_pods_that_were_created_with_their_node_run_there(cluster: Cluster, net: Net) -> None:
    found = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in net.kubectl.get("pods")["items"]}
    assert found == dict(zip(("one", "two", "three"), cluster.hosts, strict=True))
    assert len({*net.addresses().values()} - {""}) == 3


def test_each_pod_answers_for_itself(net: Net) -> None:
    for name in ("one", "two", "three"):
        for form in (name, f"{name}:80", f"http:{name}:80"):
            assert asked(net, f"pods/{form}/proxy/name") == name


def test_a_service_answers_for_all_of_its_pods(net: Net) -> None:
    for form in ("web:http", "web:8000"):
        assert {asked(net, f"services/{form}/proxy/name") for _ in range(40)} == {"one", "two", "three"}


def test_policies_do_not_stand_between_the_api_and_a_pod(net: Net) -> None:
    """It is the host that asks, from inside of the pod, as for kubectl port-forward."""
    net.kubectl.apply(policy("deny", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
    try:
        net.realized("networkpolicy/deny")
        assert asked(net, "pods/one/proxy/name") == "one"
    finally:
        net.kubectl("delete", "networkpolicy", "deny")


def test_what_does_not_answer_is_named(net: Net) -> None:
    done = net.kubectl.attempt("get", "--raw", f"/api/v1/namespaces/{net.namespace}/pods/one:81/proxy/")
    assert "Connection refused" in done.stderr
    done = net.kubectl.attempt("get", "--raw", f"/api/v1/namespaces/{net.namespace}/services/none/proxy/")
    assert 'services "none" not found' in done.stderr

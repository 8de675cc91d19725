"""What is promised about when: Realized conditions, start and stop of pods, addresses. By packets."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster, sphere
from tests.support.network_pods import Net, argv, new_net, policy, probe_container, probe_spec, server_pod

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]
Object = dict[str, Any]
STARTERS = 24
DENY: Object = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
START_BOUND_S = 25
"""The agent waits 20 s for other hosts, then goes on in namespaces that are not strict."""


@pytest.fixture
def net(cluster: Cluster) -> Iterator[Net]:
    with new_net(cluster, "real") as found:
        yield found


@pytest.fixture
def silent_host(cluster: Cluster) -> Iterator[str]:
    """A host whose agent is stopped when the test says so, and runs again at the end."""
    name = cluster.hosts[1]
    yield name
    start_agent(name)


def stop_agent(host: str) -> None:
    sphere("host", "stop", host, "--component", "nsx-agent")


def start_agent(host: str) -> None:
    sphere("host", "start", host, "--component", "nsx-agent", check=False)


def test_realized_follows_the_hosts_of_the_namespace(cluster: Cluster, net: Net, eventually: Eventually) -> None:
    net.kubectl.apply(policy("deny", DENY))
    net.realized("networkpolicy/deny")
    assert "no host" in net.condition("networkpolicy", "deny")["message"]
    for count, host in enumerate(cluster.hosts[:2], 1):
        net.run(server_pod(f"on-{count}", host))
        words = f"in force on {count} host"
        eventually(lambda words=words: words in net.condition("networkpolicy", "deny")["message"], timeout_s=5)
        assert net.condition("networkpolicy", "deny")["status"] == "True"


def test_what_is_realized_is_in_force_at_once(cluster: Cluster, net: Net) -> None:
    net.run(server_pod("one", cluster.hosts[0]), server_pod("two", cluster.hosts[1]))
    target = f"tcp:{net.addresses()['two']}:8080"
    opened: Object = {"podSelector": {}, "ingress": [{}], "egress": [{}], "policyTypes": ["Ingress", "Egress"]}
    for spec, reached in ((DENY, False), (opened, True)) * 4:
        net.kubectl.apply(policy("switch", spec))
        net.realized("networkpolicy/switch")
        answer = net.answer("one", target, timeout_s=0.5)
        assert answer.startswith("two") if reached else answer == "!timeout"


def test_a_silent_host_is_named_and_holds_up_only_what_it_must(
    cluster: Cluster, net: Net, silent_host: str, eventually: Eventually
) -> None:
    spec = {"selector": {"app": "here"}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    net.run(server_pod("here", cluster.hosts[0]), server_pod("there", silent_host))
    there = f"tcp:{net.addresses()['there']}:8080"
    stop_agent(silent_host)
    net.kubectl.apply(policy("deny", DENY), service)
    for kind, name in (("networkpolicy", "deny"), ("service", "web")):
        eventually(lambda kind=kind, name=name: net.condition(kind, name).get("status") == "False", timeout_s=10)
        eventually(lambda kind=kind, name=name: net.condition(kind, name)["reason"] == "Unreachable", timeout_s=20)
        message = net.condition(kind, name)["message"]
        assert silent_host in message
        assert "not connected" in message
        assert cluster.hosts[0] not in message
    assert net.kubectl.attempt("wait", "--for=condition=Realized", "--timeout=1s", "networkpolicy/deny").returncode
    began = time.monotonic()
    net.run(server_pod("late", cluster.hosts[2]), timeout_s=START_BOUND_S + 10)
    assert time.monotonic() - began < START_BOUND_S
    start_agent(silent_host)
    net.realized("networkpolicy/deny", "service/web", timeout_s=15)
    assert net.answer("here", there) == "!timeout"


def test_a_pods_first_packet_is_judged_by_its_policies(cluster: Cluster, net: Net, eventually: Eventually) -> None:
    """Many pods start at once under deny-all and one allowance; each tries both targets before anything else."""
    allow = [
        policy("deny", DENY),
        policy(
            "to-open",
            {
                "podSelector": {"matchLabels": {"role": "starter"}},
                "policyTypes": ["Egress"],
                "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "open"}}}]}],
            },
        ),
        policy(
            "from-starters",
            {
                "podSelector": {"matchLabels": {"app": "open"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"role": "starter"}}}]}],
            },
        ),
    ]
    net.kubectl.apply(*allow)
    net.run(server_pod("open", cluster.hosts[0]), server_pod("shut", cluster.hosts[1]))
    addresses = net.addresses()
    opened, shut = (f"tcp:{addresses[name]}:8080" for name in ("open", "shut"))
    words = argv("probe", "--timeout", "2", opened, shut)
    for number in range(STARTERS):
        container = probe_container()
        container["command"] = words
        meta = {"name": f"starter-{number}", "labels": {"role": "starter"}}
        spec = probe_spec(None, container, restartPolicy="Never")
        net.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})

    def finished() -> list[Object]:
        pods = net.kubectl.get("pods", "-l", "role=starter")["items"]
        return [pod for pod in pods if pod["status"]["phase"] in ("Succeeded", "Failed")]

    eventually(lambda: len(finished()) == STARTERS, timeout_s=90)
    for pod in finished():
        said = json.loads(net.kubectl("logs", pod["metadata"]["name"]))
        assert said[opened][0].startswith("open "), (pod["metadata"]["name"], pod["spec"]["nodeName"], said)
        assert said[shut] == ["!timeout"], (pod["metadata"]["name"], pod["spec"]["nodeName"], said)


def test_a_rolling_update_fails_no_request(cluster: Cluster, net: Net) -> None:
    """No preStop sleep: a server is told to stop only after every load balancer forgot it."""

    def deployment(version: str) -> Object:
        container = probe_container("serve", f"server-{version}")
        container["readinessProbe"] = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        template = {"metadata": {"labels": {"app": "server"}}, "spec": probe_spec(None, container)}
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "server"},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "server"}}, "template": template},
        }

    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": spec}
    net.kubectl.apply(deployment("v1"), service)
    net.kubectl("rollout", "status", "deployment/server", "--timeout=60s", timeout_s=70)
    net.realized("service/server")
    ip = net.kubectl.get("service", "server")["spec"]["clusterIP"]
    clients = [f"client-{index}" for index in range(2)]
    for name, host in zip(clients, cluster.hosts, strict=False):
        container = probe_container("traffic", "/traffic.json", "--allowed", f"{ip}:80", "--allowed", f"{ip}:80")
        meta = {"name": name}
        net.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": probe_spec(host, container)})
    net.ready(*clients)
    for version in ("v2", "v3"):
        net.kubectl.apply(deployment(version))
        net.kubectl("rollout", "status", "deployment/server", "--timeout=60s", timeout_s=70)
    for name in clients:
        state = json.loads(net.kubectl("exec", name, "--", "cat", "/traffic.json"))
        assert state["allowed"] > 100
        assert state["refused"] == 0, state["said"]


def test_an_address_is_not_used_again_before_every_host_forgot_it(
    cluster: Cluster, net: Net, silent_host: str, eventually: Eventually
) -> None:
    def phases() -> dict[str, str]:
        ports = net.kubectl.get("ports.network.sphere.io")["items"]
        return {port["spec"]["address"]: port["status"].get("phase", "") for port in ports}

    net.run(server_pod("first", cluster.hosts[0]))
    address = net.addresses()["first"]
    stop_agent(silent_host)
    net.kubectl("delete", "pod", "first", "--wait=true")
    eventually(lambda: phases().get(address, "gone") in ("Quarantined", "gone"), timeout_s=10)
    quarantined_at = time.monotonic()
    net.run(server_pod("second", cluster.hosts[0]), timeout_s=START_BOUND_S + 10)
    assert net.addresses()["second"] != address, f"after {time.monotonic() - quarantined_at:.1f} s"
    start_agent(silent_host)
    eventually(lambda: address not in phases(), timeout_s=20)

"""NetworkPolicies by packets: every pair of parties and every port against a plain reading of the policies."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.network_pods import Net, argv, new_net, policy, probe_from, server_pod
from tests.support.policy_oracle import Party, Rule, allowed

pytestmark = pytest.mark.e2e
Object = dict[str, Any]
PORTS = (("tcp", 8080), ("tcp", 8081), ("udp", 9090))
CUT_WITHIN_S = 3.0
TIMEOUT_S = 2.0
NOT_WEB = {"key": "app", "operator": "NotIn", "values": ["web"]}
DENY_IN: Object = {"podSelector": {}, "policyTypes": ["Ingress"]}
DENY_OUT: Object = {"podSelector": {}, "policyTypes": ["Egress"]}


@dataclass
class World:
    """Two namespaces, five pods on three hosts, the hosts and outside."""

    cluster: Cluster
    nets: dict[str, Net]
    pods: dict[str, Party]
    machines: dict[str, Party]

    def rules(self, policies: dict[str, dict[str, Object]]) -> list[Rule]:
        return [Rule(self.nets[color].namespace, spec) for color, specs in policies.items() for spec in specs.values()]

    def observe(self) -> dict[tuple[str, str, str, int], bool]:
        """Who really reaches whom."""
        targets = {
            f"{protocol}:{party.address}:{port}": (party.name, protocol, port)
            for party in self.pods.values()
            for protocol, port in PORTS
        }

        def ask(source: Party) -> dict[tuple[str, str, str, int], bool]:
            mine = [target for target, key in targets.items() if key[0] != source.name]
            if source.namespace:
                net = next(net for net in self.nets.values() if net.namespace == source.namespace)
                found = net.probe(source.name, *mine, timeout_s=TIMEOUT_S)
            else:
                found = probe_from(self.cluster, source.name, *mine, timeout_s=TIMEOUT_S)
            return {
                (source.name, *targets[target]): not answers[0].startswith("!") for target, answers in found.items()
            }

        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(ask, [*self.pods.values(), *self.machines.values()]))
        return {key: value for part in parts for key, value in part.items()}

    def expect(self, rules: list[Rule]) -> dict[tuple[str, str, str, int], bool]:
        return {
            (source.name, target.name, protocol, port): allowed(source, target, protocol, port, rules)
            for source in (*self.pods.values(), *self.machines.values())
            for target in self.pods.values()
            if source.name != target.name
            for protocol, port in PORTS
        }


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    with new_net(cluster, "red", {"team": "red"}) as red, new_net(cluster, "blue", {"team": "blue"}) as blue:
        nets = {"red": red, "blue": blue}
        plan = {
            "red-web-1": ("red", 0, {"app": "web"}),
            "red-web-2": ("red", 1, {"app": "web"}),
            "red-db": ("red", 2, {"app": "db"}),
            "blue-web": ("blue", 0, {"app": "web"}),
            "blue-job": ("blue", 2, {"app": "job"}),
        }
        ports = [{"name": "http", "containerPort": 8080}, {"name": "echo", "containerPort": 9090, "protocol": "UDP"}]
        for name, (color, host, labels) in plan.items():
            pod = server_pod(name, cluster.hosts[host], labels, tcp="8080,8081", udp="9090", ports=ports)
            nets[color].kubectl.apply(pod)
        for color, net in nets.items():
            net.ready(*(name for name in plan if name.startswith(color)))
        pods: dict[str, Party] = {}
        for color, net in nets.items():
            for name, address in net.addresses().items():
                labels = plan[name][2]
                named = {"http": ("tcp", 8080), "echo": ("udp", 9090)}
                pods[name] = Party(name, address, net.namespace, labels, {"team": color}, named)
        machines = {host: Party(host, f"172.30.0.1{host[-1]}") for host in cluster.hosts}
        yield World(cluster, nets, pods, machines)


CASES: dict[str, dict[str, dict[str, Object]]] = {
    "open": {},
    "deny ingress": {"red": {"deny": DENY_IN}},
    "deny egress": {"red": {"deny": DENY_OUT}},
    "deny all both": {"red": {"in": DENY_IN, "out": DENY_OUT}, "blue": {"in": DENY_IN}},
    "web to db": {
        "red": {
            "deny": DENY_IN,
            "db": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 8080}]}],
            },
        }
    },
    "other namespace": {
        "red": {
            "blue": {
                "podSelector": {},
                "ingress": [
                    {"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}], "ports": [{"port": "http"}]}
                ],
            }
        }
    },
    "both selectors": {
        "red": {
            "jobs": {
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]},
                "ingress": [
                    {
                        "from": [
                            {
                                "namespaceSelector": {"matchLabels": {"team": "blue"}},
                                "podSelector": {"matchExpressions": [NOT_WEB]},
                            }
                        ]
                    }
                ],
            }
        }
    },
    "port range and udp": {
        "red": {
            "range": {
                "podSelector": {},
                "ingress": [{"ports": [{"port": 8081, "endPort": 8090}, {"protocol": "UDP", "port": "echo"}]}],
            }
        }
    },
    "egress": {
        "red": {
            "out": {
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Egress"],
                "egress": [
                    {"to": [{"podSelector": {"matchLabels": {"app": "db"}}}], "ports": [{"port": "http"}]},
                    {"to": [{"namespaceSelector": {}}], "ports": [{"protocol": "UDP", "port": 9090}]},
                ],
            }
        },
        "blue": {"deny": DENY_IN},
    },
    "blocks": {
        "red": {
            "hosts": {
                "podSelector": {},
                "ingress": [{"from": [{"ipBlock": {"cidr": "172.30.0.0/24", "except": ["172.30.0.12/32"]}}]}],
            }
        }
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_pair_is_as_the_policies_say(world: World, case: str) -> None:
    policies = CASES[case]
    try:
        for color, specs in policies.items():
            world.nets[color].kubectl.apply(*(policy(name, spec) for name, spec in specs.items()))
        for color, specs in policies.items():
            world.nets[color].realized(*(f"networkpolicy/{name}" for name in specs))
        expected = world.expect(world.rules(policies))

        def disagree(seen: dict[tuple[str, str, str, int], bool]) -> dict[tuple[str, str, str, int], bool]:
            return {key: value for key, value in seen.items() if value != expected[key]}

        seen = world.observe()
        wrong = disagree(seen)
        assert not wrong, f"{len(wrong)} of {len(seen)} (seen): {wrong}; again: {disagree(world.observe())}"
        assert seen.keys() == expected.keys()
    finally:
        for color, specs in policies.items():
            world.nets[color].kubectl("delete", "networkpolicy", *specs)


def test_deletion_opens_again(world: World, eventually: Any) -> None:
    red, target = world.nets["red"], f"tcp:{world.pods['red-db'].address}:8080"
    red.kubectl.apply(policy("deny", DENY_IN))
    red.realized("networkpolicy/deny")
    assert red.answer("red-web-1", target) == "!timeout"
    red.kubectl("delete", "networkpolicy", "deny")
    eventually(lambda: not red.answer("red-web-1", target).startswith("!"), timeout_s=5)


def test_outside_is_denied_at_a_node_port(world: World, eventually: Any) -> None:
    red = world.nets["red"]
    spec = {"type": "NodePort", "selector": {"app": "db"}, "ports": [{"port": 80, "targetPort": "http"}]}
    red.kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "door"}, "spec": spec})
    red.realized("service/door")
    number = red.kubectl.get("service", "door")["spec"]["ports"][0]["nodePort"]
    targets = [f"tcp:172.30.0.1{host[-1]}:{number}" for host in world.cluster.hosts]
    assert all(found[0].startswith("red-db") for found in probe_from(world.cluster, "outside", *targets).values())
    red.kubectl.apply(policy("deny", DENY_IN))
    try:
        red.realized("networkpolicy/deny")
        for target, found in probe_from(world.cluster, "outside", *targets).items():
            assert found == ["!timeout"], target
    finally:
        red.kubectl("delete", "networkpolicy", "deny")


def test_running_flows_are_cut_and_others_go_on(world: World, eventually: Any) -> None:
    red = world.nets["red"]
    db = world.pods["red-db"].address
    streams = {"red-web-1": "/red.json", "red-web-2": "/red.json"}
    for pod, file in streams.items():
        words = argv("traffic", file, "--stream", f"{db}:8080")
        red.kubectl("exec", pod, "--", "sh", "-c", f"{' '.join(words)} >/dev/null 2>&1 &")

    def state(pod: str) -> Object:
        done = red.kubectl.attempt("exec", pod, "--", "cat", streams[pod])
        found: Object = json.loads(done.stdout or '{"exchanges": 0}')
        return found

    for pod in streams:
        eventually(lambda pod=pod: state(pod)["exchanges"] > 20)
    only_2 = {
        "podSelector": {"matchLabels": {"app": "db"}},
        "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "red-web-2"}}}]}],
    }
    red.kubectl("label", "pod", "red-web-2", "app=red-web-2", "--overwrite")
    red.kubectl.apply(policy("only-2", only_2))
    try:
        red.realized("networkpolicy/only-2")
        began = time.monotonic()
        first = state("red-web-1")["exchanges"]
        while (now := state("red-web-1")["exchanges"]) != first:
            assert time.monotonic() - began < CUT_WITHIN_S, "the flow goes on"
            first = now
        before = state("red-web-2")
        eventually(lambda: state("red-web-2")["exchanges"] > before["exchanges"] + 20)
        assert state("red-web-2")["lost"] == 0
        assert state("red-web-2")["gap_s"] < 1.0
    finally:
        red.kubectl("delete", "networkpolicy", "only-2")
        red.kubectl("label", "pod", "red-web-2", "app=web", "--overwrite")

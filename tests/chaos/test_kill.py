"""Every process is killed in turn, under traffic. No pod restarts, no connection is lost, nothing denied gets through.

Clients on all hosts hold a connection to another host, open new ones through a Service, and try what is denied.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster, sphere
from tests.support.network_pods import Net, new_net, policy, probe_container, probe_spec, server_pod

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]
Eventually = Callable[..., Any]
Object = dict[str, Any]
BACK_WITHIN_S = 2.0
"""From the kill to the supervisor's new process."""
HEALTHY_WITHIN_S = 20.0
ENDPOINTS_LEAVE_S = 8.0
"""From a power cut to the last new connection that was sent to the dead host."""

KILLS = [
    (("host-1",), "nsx-agent"),
    (("host-1", "host-2", "host-3"), "nsx-agent"),
    (("host-2",), "spherelet"),
    (("host-1", "host-2", "host-3"), "spherelet"),
    (("host-1",), "containerd"),
    (("host-3",), "unbound"),
    (("control",), "sphere-controller"),
    (("control",), "mosquitto"),
    (("control",), "etcd"),
]


class World:
    """A namespace under policy, with traffic in it."""

    def __init__(self, cluster: Cluster, net: Net) -> None:
        self.cluster, self.net = cluster, net
        self.clients = [f"client-{number}" for number in range(1, 4)]

    def start(self) -> None:
        net, hosts = self.net, self.cluster.hosts
        client_only = [{"from": [{"podSelector": {"matchLabels": {"role": "client"}}}]}]
        net.kubectl.apply(
            policy("deny", {"podSelector": {}, "policyTypes": ["Ingress"]}),
            policy("serve", {"podSelector": {"matchLabels": {"role": "server"}}, "ingress": client_only}),
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "server"},
                "spec": {"selector": {"role": "server"}, "ports": [{"port": 80, "targetPort": 8080}]},
            },
        )
        servers = [server_pod(f"server-{n}", host, {"role": "server"}) for n, host in enumerate(hosts, 1)]
        shut = [server_pod(f"shut-{n}", host) for n, host in enumerate(hosts, 1)]
        net.run(*servers, *shut)
        net.realized("networkpolicy/deny", "networkpolicy/serve", "service/server")
        self.service = net.kubectl.get("service", "server")["spec"]["clusterIP"]
        addresses = net.addresses()
        for index, name in enumerate(self.clients):
            other = (1, 0, 0)[index] + 1
            container = probe_container(
                "traffic",
                "/traffic.json",
                *("--stream", f"{addresses[f'server-{other}']}:8080"),
                *("--allowed", f"{self.service}:80"),
                *("--denied", f"{addresses[f'shut-{other}']}:8080"),
            )
            meta = {"name": name, "labels": {"role": "client"}}
            spec = probe_spec(hosts[index], container)
            net.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        net.ready(*self.clients)

    def traffic(self, client: str) -> Object:
        done = self.net.kubectl.attempt("exec", client, "--", "cat", "/traffic.json")
        found: Object = json.loads(done.stdout or "{}")
        return found

    def all_traffic(self) -> dict[str, Object]:
        return {client: self.traffic(client) for client in self.clients}

    def containers(self) -> dict[str, tuple[str, int]]:
        """Container id and restarts of every pod."""
        pods = self.net.kubectl.get("pods")["items"]
        statuses = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0] for pod in pods}
        return {name: (status["containerID"], status["restartCount"]) for name, status in statuses.items()}

    def pids(self, hosts: tuple[str, ...], component: str) -> dict[str, tuple[int, float]]:
        """Process and start time (wall clock) of a component on some machines."""
        now = time.time()
        rows = [row for row in self.cluster.components() if row["component"] == component and row["machine"] in hosts]
        return {
            row["machine"]: (row["pid"], now - row["uptime_s"])
            for row in rows
            if row["state"] == "running" and row["pid"]
        }

    def healthy(self) -> bool:
        """All nodes and pods Ready, as the API says now."""
        done = self.net.kubectl.attempt("get", "nodes,pods", "-o", "json", timeout_s=10)
        if done.returncode:
            return False
        conditions = [item["status"]["conditions"] for item in json.loads(done.stdout)["items"]]
        return all({"Ready": "True"}.items() <= {c["type"]: c["status"] for c in each}.items() for each in conditions)


@pytest.fixture(scope="module")
def world(cluster: Cluster) -> Iterator[World]:
    with new_net(cluster, "chaos") as net:
        found = World(cluster, net)
        found.start()
        yield found


@pytest.mark.parametrize(
    ("machines", "component"), KILLS, ids=lambda each: each if isinstance(each, str) else "+".join(each)
)
def test_a_killed_process_is_nobodys_problem(
    world: World, eventually: Eventually, machines: tuple[str, ...], component: str
) -> None:
    eventually(world.healthy, timeout_s=HEALTHY_WITHIN_S)
    eventually(lambda: all(state.get("exchanges", 0) > 10 for state in world.all_traffic().values()))
    containers, before, pids = world.containers(), world.all_traffic(), world.pids(machines, component)
    killed_at: dict[str, float] = {}
    for machine in machines:
        killed_at[machine] = time.time()
        world.cluster.kill(machine, component)

    def back() -> bool:
        now = world.pids(machines, component)
        return now.keys() == pids.keys() and all(now[each][0] != pids[each][0] for each in machines)

    eventually(back, timeout_s=10)
    for machine, (_, started) in world.pids(machines, component).items():
        assert started - killed_at[machine] < BACK_WITHIN_S, f"{component} of {machine} came back late"
    eventually(world.healthy, timeout_s=HEALTHY_WITHIN_S)
    # All of it works again: a pod is scheduled, started, told to every host, reached, and removed.
    world.net.run(server_pod("after", None, {"role": "server"}))
    world.net.realized("service/server", "networkpolicy/serve")
    world.net.kubectl("delete", "pod", "after", "--wait=true")
    after = {client: changes(before[client], state) for client, state in world.all_traffic().items()}
    for client, change in after.items():
        assert change["exchanges"] > 20, (client, change)
        assert change["allowed"] > 20, (client, change)
        assert change["denied"] > 2, (client, change)
        assert (change["lost"], change["refused"], change["leaked"]) == (0, 0, 0), (client, change)
    assert world.containers() == containers


def changes(before: Object, after: Object) -> Object:
    counted = {key: after[key] - before[key] for key in before if isinstance(before[key], int)}
    return {**counted, "said": after["said"][len(before["said"]) :], "gap_s": after["gap_s"]}


def test_a_power_cut_is_felt_on_that_host_alone(world: World, eventually: Eventually) -> None:
    victim, others = world.cluster.hosts[2], world.clients[:2]
    eventually(world.healthy, timeout_s=HEALTHY_WITHIN_S)
    containers, before = world.containers(), {client: world.traffic(client) for client in others}
    sphere("host", "kill", victim)
    cut_at = time.monotonic()
    try:
        time.sleep(ENDPOINTS_LEAVE_S)  # the bound itself: what fails after it is too late
        middle = {client: world.traffic(client) for client in others}
        late_s = time.monotonic() - cut_at
        eventually(lambda: world.traffic(others[0])["allowed"] > middle[others[0]]["allowed"] + 50)
        for client in others:
            change = changes(middle[client], world.traffic(client))
            # One that was sent there before may still be waiting for its answer.
            assert change["refused"] <= 1, (client, change, late_s)
            whole = changes(before[client], world.traffic(client))
            assert (whole["lost"], whole["leaked"]) == (0, 0), (client, whole)
    finally:
        sphere("host", "start", victim)
    there = {"server-3", "shut-3", "client-3"}

    def started_anew() -> bool:
        now = world.containers()
        return all(now[name][0] != containers[name][0] for name in there)

    eventually(started_anew, timeout_s=60)  # until its host is heard again, the API says what it last heard
    eventually(world.healthy, timeout_s=60)
    now = world.containers()
    assert {name: now[name] for name in now if name not in there} == {
        name: containers[name] for name in containers if name not in there
    }
    eventually(lambda: world.traffic("client-3").get("allowed", 0) > 20)
    assert world.traffic("client-3")["leaked"] == 0
    answers = world.net.probe("client-1", f"tcp:{world.service}:80", each=40)[f"tcp:{world.service}:80"]
    assert {answer.split()[0] for answer in answers} == {"server-1", "server-2", "server-3"}

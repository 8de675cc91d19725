"""Names, as pods ask for them: services, pods of headless services, aliases, reverse names, ports."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.cluster import Cluster
from tests.support.network_pods import Net, names, new_net, policy, server_pod

pytestmark = pytest.mark.e2e
WEB = {"tier": "web"}


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def net(cluster: Cluster) -> Iterator[Net]:
    with new_net(cluster, "dns") as found:
        pods = [
            server_pod(name, host, WEB, hostname=name, subdomain="peers")
            for name, host in zip(("one", "two", "three"), cluster.hosts, strict=True)
        ]
        found.run(*pods)
        ports = [{"name": "http", "port": 80, "targetPort": 8080}]
        found.kubectl.apply(
            service("web", selector=WEB, ports=ports),
            service("peers", selector=WEB, clusterIP="None", ports=[{"name": "http", "port": 8080}]),
            service("away", type="ExternalName", externalName="www.example.com"),
        )
        found.realized("service/web", "service/peers", "service/away")
        yield found


def lookup(net: Net, name: str, kind: str = "a") -> str:
    """What busybox's nslookup says, whether it finds something or not."""
    done = net.kubectl.attempt("exec", "one", "--", "busybox", "nslookup", f"-type={kind}", name)
    return done.stdout + done.stderr


def reverse(address: str) -> str:
    return ".".join(reversed(address.split("."))) + ".in-addr.arpa"


def test_a_service_has_short_and_long_names(net: Net) -> None:
    forms = ("web", f"web.{net.namespace}", f"web.{net.namespace}.svc", f"web.{net.namespace}.svc.cluster.local")
    for pod in ("one", "two", "three"):
        for target, answers in net.probe(pod, *(f"tcp:{form}:80" for form in forms), each=5, timeout_s=3).items():
            assert names(answers) <= {"one", "two", "three"}, (pod, target, answers)
    assert net.answer("one", "tcp:kubernetes.default:443", timeout_s=3) in ("!closed", "!timeout"), "found, but silent"


def test_a_headless_service_names_each_pod(net: Net, eventually: Any) -> None:
    addresses = net.addresses()
    for pod in ("one", "two", "three"):
        for name in ("one", "two", "three"):
            answer = net.answer(pod, f"tcp:{name}.peers.{net.namespace}.svc.cluster.local:8080", timeout_s=3)
            assert answer == f"{name} {addresses[pod]}"
    said = lookup(net, f"peers.{net.namespace}.svc.cluster.local")
    assert all(address in said for address in addresses.values())
    own = net.kubectl("exec", "one", "--", "hostname", "-f").strip()
    assert own == f"one.peers.{net.namespace}.svc.cluster.local"


def test_reverse_names(net: Net) -> None:
    ip = net.kubectl.get("service", "web")["spec"]["clusterIP"]
    assert f"web.{net.namespace}.svc.cluster.local" in lookup(net, reverse(ip), "ptr")
    assert f"two.peers.{net.namespace}.svc.cluster.local" in lookup(net, reverse(net.addresses()["two"]), "ptr")


def test_ports_have_srv_records(net: Net) -> None:
    base = f"{net.namespace}.svc.cluster.local"
    assert f"0 100 80 web.{base}" in lookup(net, f"_http._tcp.web.{base}", "srv")
    said = lookup(net, f"_http._tcp.peers.{base}", "srv")
    for name in ("one", "two", "three"):
        assert f"0 100 8080 {name}.peers.{base}" in said


def test_a_pod_without_a_host_name_is_named_by_its_address(net: Net) -> None:
    net.run(server_pod("plain", None, {"tier": "plain"}))
    ports = [{"name": "http", "port": 8080}]
    net.kubectl.apply(service("plain", selector={"tier": "plain"}, clusterIP="None", ports=ports))
    net.realized("service/plain")
    address = net.addresses()["plain"]
    base = f"plain.{net.namespace}.svc.cluster.local"
    name = f"{address.replace('.', '-')}.{base}"
    assert net.answer("one", f"tcp:{name}:8080", timeout_s=3).startswith("plain ")
    assert f"0 100 8080 {name}" in lookup(net, f"_http._tcp.{base}", "srv")
    assert name in lookup(net, reverse(address), "ptr")


def test_a_service_changes_its_type_and_its_name_leads_elsewhere(net: Net, eventually: Any) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    net.kubectl.apply(service("turn", type="NodePort", selector=WEB, ports=ports))
    base = f"{net.namespace}.svc.cluster.local"

    def turn(**spec: Any) -> None:
        net.kubectl("patch", "service", "turn", "-p", json.dumps({"spec": spec}))

    turn(type="ExternalName", externalName=f"web.{base}")
    target = net.kubectl.get("service", "web")["spec"]["clusterIP"]
    eventually(lambda: target in lookup(net, f"turn.{base}"), timeout_s=5)
    assert "clusterIP" not in net.kubectl.get("service", "turn")["spec"]
    turn(type="ClusterIP")
    own = net.kubectl.get("service", "turn")["spec"]["clusterIP"]
    eventually(lambda: own in lookup(net, f"turn.{base}"), timeout_s=5)
    eventually(lambda: names([net.answer("one", "tcp:turn:80", timeout_s=3)]) <= {"one", "two", "three"}, timeout_s=5)
    net.kubectl("delete", "service", "turn")


def test_an_external_name_is_an_alias(net: Net) -> None:
    assert "www.example.com" in lookup(net, f"away.{net.namespace}.svc.cluster.local", "cname")


def test_names_that_are_not_there_are_denied_at_once(net: Net) -> None:
    for name in (f"nosuch.{net.namespace}.svc.cluster.local", "zzz.zzz.svc.cluster.local", "nosuch.cluster.local"):
        assert "NXDOMAIN" in lookup(net, name), name
    for pod in ("one", "two", "three"):
        assert net.answer(pod, "tcp:nosuch:80", timeout_s=2).startswith("!name")


def test_a_name_goes_with_its_service(net: Net, eventually: Any) -> None:
    brief = service("brief", selector=WEB, ports=[{"port": 80, "targetPort": 8080}])
    net.kubectl.apply(brief)
    net.realized("service/brief")
    assert not net.answer("three", "tcp:brief:80", timeout_s=3).startswith("!")
    net.kubectl("delete", "service", "brief")
    eventually(lambda: net.answer("three", "tcp:brief:80", timeout_s=2).startswith("!name"), timeout_s=5)


def test_dns_works_under_deny_all_egress(cluster: Cluster) -> None:
    """DNS is part of the platform: a policy need not allow it."""
    with new_net(cluster, "dnsdeny") as net:
        net.kubectl.apply(policy("none", {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}))
        net.run(server_pod("shut", cluster.hosts[1]))
        said = net.kubectl("exec", "shut", "--", "busybox", "nslookup", "kubernetes.default.svc.cluster.local")
        assert "10.96.0.1" in said
        assert net.answer("shut", "tcp:kubernetes.default:443", timeout_s=1) == "!timeout"

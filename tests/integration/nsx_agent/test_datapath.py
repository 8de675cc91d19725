"""Two hosts, their agents and hand-published messages: what packets do."""

import pytest

from common.messages import (
    AddressSetItem,
    Backend,
    BlockItem,
    HostItem,
    InterestItem,
    PolicyItem,
    PolicyPort,
    PolicyRule,
    Scope,
    ServiceItem,
    ServicePort,
)

pytestmark = pytest.mark.integration
SHOP = Scope.namespace("shop")
CLUSTER = Scope.cluster()


@pytest.fixture(scope="module")
def cluster(world):
    """host-1 with client and web-1, host-2 with web-2, all in namespace shop."""
    control = world.controller
    one, two = world.add_host(), world.add_host()
    client = world.pod(one, "shop", "client", "10.64.0.2")
    near = world.pod(one, "shop", "web-1", "10.64.0.3")
    far = world.pod(two, "shop", "web-2", "10.64.0.18")
    world.client, world.near, world.far = client, near, far
    service = ServiceItem(
        namespace="shop", name="web", cluster_ip="10.96.0.80",
        ports=(ServicePort(protocol="tcp", port=80, node_port=30080, backends=(
            Backend(address="10.64.0.3", port=8080, host="host-1"),
            Backend(address="10.64.0.18", port=8080, host="host-2"))),),
    )  # fmt: skip
    control.publish(
        CLUSTER,
        {
            "host/host-1": HostItem(name="host-1", underlay=one.address),
            "host/host-2": HostItem(name="host-2", underlay=two.address),
            "block/10.64.0.0-28": BlockItem(cidr="10.64.0.0/28", vni=4096, host="host-1", namespace="shop"),
            "block/10.64.0.16-28": BlockItem(cidr="10.64.0.16/28", vni=4096, host="host-2", namespace="shop"),
            "service/shop/web": service,
        },
    )
    control.publish(SHOP, {})
    interest = {"interest/namespaces": InterestItem(namespaces=("shop",))}
    control.publish(one.scope, {**interest, f"port/{client.uid}": client.item(), f"port/{near.uid}": near.item()})
    control.publish(two.scope, {**interest, f"port/{far.uid}": far.item()})
    for pod in (client, near, far):
        reply = pod.add()
        assert reply["ok"], (reply, pod.host.log())
        assert reply["address"] == pod.address
    near.listen(8080)
    far.listen(8080)
    return world


def get(where, address, port, timeout_s=1.0):
    return where.run(
        "socat", "-t", "0.5", "-T", str(timeout_s), "-",
        f"TCP4:{address}:{port},connect-timeout={timeout_s}", check=False, stdin="",
    ).strip()  # fmt: skip


def test_pods_reach_each_other_on_and_across_hosts(cluster):
    assert get(cluster.client, cluster.near.address, 8080) == "web-1"
    assert get(cluster.client, cluster.far.address, 8080) == "web-2"


def test_service_spreads_over_hosts(cluster):
    answers = {get(cluster.client, "10.96.0.80", 80) for _ in range(20)}
    assert answers == {"web-1", "web-2"}


def test_hosts_reach_services_and_remote_pods(cluster):
    one, two = cluster.hosts
    assert {get(one, "10.96.0.80", 80) for _ in range(16)} == {"web-1", "web-2"}
    assert get(two, cluster.near.address, 8080) == "web-1"


def test_hairpin(cluster):
    assert {get(cluster.near, "10.96.0.80", 80) for _ in range(16)} == {"web-1", "web-2"}


def test_policy_denies_and_allows(cluster):
    control, client, near, far = cluster.controller, cluster.client, cluster.near, cluster.far
    policy = PolicyItem(namespace="shop", name="web", uid="u1", selected="webs", ingress=())
    webs = AddressSetItem(id="webs", members=(far.address, near.address))
    control.publish(SHOP, {"policy/web": policy, "set/webs": webs})
    control.wait_realized(SHOP, ["host-1", "host-2"])
    assert get(client, near.address, 8080) == ""
    assert get(client, far.address, 8080) == ""
    allowed = PolicyRule(sets=("clients",), ports=(PolicyPort(protocol="tcp", port=8080),))
    control.publish(
        SHOP,
        {
            "policy/web": PolicyItem(namespace="shop", name="web", uid="u1", selected="webs", ingress=(allowed,)),
            "set/clients": AddressSetItem(id="clients", members=(client.address,)),
        },
    )
    control.wait_realized(SHOP, ["host-1", "host-2"])
    assert get(client, near.address, 8080) == "web-1"
    assert get(client, far.address, 8080) == "web-2"
    assert get(near, far.address, 8080) == ""
    control.publish(SHOP, {"policy/web": None, "set/webs": None, "set/clients": None})
    control.wait_realized(SHOP, ["host-1", "host-2"])
    assert get(near, far.address, 8080) == "web-2"

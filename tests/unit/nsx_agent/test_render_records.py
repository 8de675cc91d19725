"""DNS records of services, and of services that are names of others."""

import pytest

from common.errors import Terminal
from common.messages import DnsName, HostItem, ServiceItem, ServicePort, encode
from nsx_agent.intent import Intent
from nsx_agent.model import RecordKey
from nsx_agent.render import records
from tests.sim.agent import site_of

DOMAIN = "cluster.local"
BASE = "alias.shop.svc.cluster.local."


def named(name, **more):
    return ServiceItem(namespace="shop", name=name, **more)


WEB = named("web", cluster_ip="10.96.0.80", ports=(ServicePort(name="http", protocol="tcp", port=80),))
PEERS = named(
    "peers",
    names=(DnsName(addresses=("10.64.0.1", "10.64.0.2")), DnsName(label="one", addresses=("10.64.0.1",))),
)
OTHERS = {f"service/shop/{one.name}": one for one in (WEB, PEERS)}


def alias(name, others=OTHERS):
    return records.render(named("alias", external_name=name), DOMAIN, others)


def test_a_service_has_its_name_its_ports_and_its_reverse_name():
    assert records.render(WEB, DOMAIN, {}) == {
        RecordKey("web.shop.svc.cluster.local.", False): ("5 IN A 10.96.0.80",),
        RecordKey("80.0.96.10.in-addr.arpa.", False): ("5 IN PTR web.shop.svc.cluster.local.",),
        RecordKey("_http._tcp.web.shop.svc.cluster.local.", False): ("5 IN SRV 0 100 80 web.shop.svc.cluster.local.",),
    }


def test_each_pod_of_a_headless_service_has_a_name_that_its_ports_lead_to():
    port = ServicePort(name="http", protocol="tcp", port=8080)
    base = "peers.shop.svc.cluster.local."
    found = records.render(named("peers", names=PEERS.names, ports=(port,)), DOMAIN, {})
    assert {key.name: value for key, value in found.items()} == {
        base: ("5 IN A 10.64.0.1", "5 IN A 10.64.0.2"),
        f"one.{base}": ("5 IN A 10.64.0.1",),
        f"10-64-0-2.{base}": ("5 IN A 10.64.0.2",),
        "1.0.64.10.in-addr.arpa.": (f"5 IN PTR one.{base}",),
        "2.0.64.10.in-addr.arpa.": (f"5 IN PTR 10-64-0-2.{base}",),
        f"_http._tcp.{base}": (f"5 IN SRV 0 100 8080 10-64-0-2.{base}", f"5 IN SRV 0 100 8080 one.{base}"),
    }


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("web.shop.svc.cluster.local", ["10.96.0.80"]),
        ("web.shop.svc.cluster.local.", ["10.96.0.80"]),
        ("peers.shop.svc.cluster.local", ["10.64.0.1", "10.64.0.2"]),
        ("one.peers.shop.svc.cluster.local", ["10.64.0.1"]),
        ("two.peers.shop.svc.cluster.local", []),
        ("one.web.shop.svc.cluster.local", []),
        ("none.shop.svc.cluster.local", []),
    ],
)
def test_an_alias_of_a_service_has_its_addresses(name, addresses):
    wanted = tuple(f"5 IN A {address}" for address in addresses)
    assert alias(name) == ({RecordKey(BASE, False): wanted} if wanted else {})


def test_an_alias_of_an_alias_leads_to_its_end_and_a_circle_to_nothing():
    outside = {"service/shop/out": named("out", external_name="db.example.org")}
    assert alias("out.shop.svc.cluster.local", outside) == {RecordKey(BASE, True): ("5 IN CNAME db.example.org.",)}
    circle = {"service/shop/alias": named("alias", external_name="alias.shop.svc.cluster.local")}
    assert alias("alias.shop.svc.cluster.local", circle) == {}


def test_a_name_outside_is_a_cname_and_one_that_is_no_name_is_refused():
    assert alias("db.example.org") == {RecordKey(BASE, True): ("5 IN CNAME db.example.org.",)}
    with pytest.raises(Terminal, match="not a DNS label"):
        alias("db example")


def test_an_alias_follows_what_it_names():
    intent = Intent(site_of("host-1", "172.30.0.11"))
    key = RecordKey(BASE, False)
    items = {
        "host/host-1": encode(HostItem(name="host-1", underlay="172.30.0.11")),
        "service/shop/alias": encode(named("alias", external_name="web.shop.svc.cluster.local")),
    }
    intent.change("cluster", items)
    intent.render()
    assert key not in intent.composite.entries
    intent.change("cluster", {"service/shop/web": encode(WEB)})
    touched, _ = intent.render()
    assert key in touched
    assert intent.composite.entries[key] == ("5 IN A 10.96.0.80",)
    intent.change("cluster", {"service/shop/web": None})
    intent.render()
    assert key not in intent.composite.entries


def test_a_name_longer_than_dns_carries_is_refused():
    with pytest.raises(Terminal, match="longer than 253"):
        alias(".".join(["a" * 60] * 5))

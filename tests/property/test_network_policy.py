"""Compiled policies against a slow, obvious reading of the raw NetworkPolicy, over pods x pods x ports x protocols."""

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import AddressSetItem, Message, PolicyItem, PolicyPort, PolicyRule, Scope, decode_item
from controller.kinds.kind import Object
from controller.network.planner import Planner
from controller.network.views import NAMESPACES, PODS, POLICIES, PORTS, view_of
from tests.support.network_objects import NAMES, a_namespace, a_pod, a_port, labels, pod_ports, policies

PROTOCOLS = ("TCP", "UDP", "SCTP")
NUMBERS = (80, 81, 82, 8080)


# ---- the oracle: the API's text, word for word ---------------------------------------------------------------


def selects(selector: dict[str, Any], have: dict[str, str]) -> bool:
    if any(have.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        key, operator, values = each["key"], each["operator"], each.get("values", [])
        if operator == "In" and (key not in have or have[key] not in values):
            return False
        if operator == "NotIn" and key in have and have[key] in values:
            return False
        if operator == "Exists" and key not in have:
            return False
        if operator == "DoesNotExist" and key in have:
            return False
    return True


class World:
    def __init__(self, namespaces: dict[str, Object], pods: dict[str, Object], rules: list[Object]) -> None:
        self.namespaces, self.pods, self.policies = namespaces, pods, rules

    def in_peer(self, policy: Object, peer: dict[str, Any], address: str) -> bool:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            inside = ip_address(address) in ip_network(block["cidr"])
            return inside and not any(ip_address(address) in ip_network(each) for each in block.get("except", []))
        pod = self.pods.get(address)
        if pod is None or pod["spec"].get("hostNetwork"):
            return False
        namespace = pod["metadata"]["namespace"]
        if "namespaceSelector" in peer:
            have = {**self.namespaces[namespace]["metadata"]["labels"], "kubernetes.io/metadata.name": namespace}
            if not selects(peer["namespaceSelector"], have):
                return False
        elif namespace != policy["metadata"]["namespace"]:
            return False
        return selects(peer.get("podSelector", {}), pod["metadata"]["labels"])

    def on_port(self, port: dict[str, Any], destination: str, protocol: str, number: int) -> bool:
        if port.get("protocol", "TCP") != protocol:
            return False
        want = port.get("port")
        if want is None:
            return True
        if isinstance(want, int):
            return want <= number <= port.get("endPort", want)
        pod = self.pods.get(destination)
        if pod is None or pod["spec"].get("hostNetwork"):
            return False
        return any(
            (each["name"], each["protocol"], each["containerPort"]) == (want, protocol, number)
            for each in pod["spec"]["containers"][0]["ports"]
        )

    def allows(self, policy: Object, ingress: bool, peer: str, destination: str, protocol: str, number: int) -> bool:
        spec = policy["spec"]
        for rule in spec.get("ingress" if ingress else "egress") or []:
            entries = rule.get("from" if ingress else "to")
            if entries and not any(self.in_peer(policy, each, peer) for each in entries):
                continue
            ports = rule.get("ports")
            if ports and not any(self.on_port(each, destination, protocol, number) for each in ports):
                continue
            return True
        return False

    def permitted(self, pod: str, ingress: bool, peer: str, protocol: str, number: int) -> bool:
        mine = self.pods[pod]
        isolating = []
        for policy in self.policies:
            spec = policy["spec"]
            types = spec.get("policyTypes") or (["Ingress", "Egress"] if spec.get("egress") else ["Ingress"])
            if ("Ingress" if ingress else "Egress") not in types:
                continue
            if policy["metadata"]["namespace"] == mine["metadata"]["namespace"] and selects(
                spec["podSelector"], mine["metadata"]["labels"]
            ):
                isolating.append(policy)
        destination = pod if ingress else peer
        return not isolating or any(
            self.allows(policy, ingress, peer, destination, protocol, number) for policy in isolating
        )


# ---- what an agent makes of the items --------------------------------------------------------------------------


class Agent:
    def __init__(self, planner: Planner, namespace: str) -> None:
        scope = planner.desired.scopes.get(Scope.namespace(namespace))
        items: list[Message] = [decode_item(key, data) for key, data in scope.items.items()] if scope else []
        self.policies = [item for item in items if isinstance(item, PolicyItem)]
        self.sets = {item.id: item for item in items if isinstance(item, AddressSetItem)}

    def holds(self, name: str, address: str) -> bool:
        found = self.sets[name]
        inside = any(ip_address(address) in ip_network(each) for each in found.members)
        return inside and not any(ip_address(address) in ip_network(each) for each in found.excluded)

    def fits(self, rule: PolicyRule, peer: str, destination: str, protocol: str, number: int) -> bool:
        def on(port: PolicyPort) -> bool:
            if port.protocol != protocol.lower():
                return False
            if port.port == -1:
                return (destination, number) in port.pairs
            return port.port in (0, number) or port.port <= number <= port.end_port

        if not rule.any_peer and not any(self.holds(each, peer) for each in rule.sets):
            return False
        return not rule.ports or any(on(port) for port in rule.ports)

    def permitted(self, pod: str, ingress: bool, peer: str, protocol: str, number: int) -> bool:
        isolating = [
            rules
            for policy in self.policies
            if (rules := policy.ingress if ingress else policy.egress) is not None and self.holds(policy.selected, pod)
        ]
        destination = pod if ingress else peer
        return not isolating or any(
            self.fits(rule, peer, destination, protocol, number) for rules in isolating for rule in rules
        )


@st.composite
def worlds(draw: st.DrawFn) -> World:
    namespaces = {name: a_namespace(name, draw(labels)) for name in NAMES}
    pods = {}
    for number in range(draw(st.integers(1, 6))):
        namespace = draw(st.sampled_from(NAMES))
        network = {"hostNetwork": True} if draw(st.integers(0, 7)) == 0 else {}
        pods[f"10.64.0.{number}"] = a_pod(
            namespace, f"pod-{number}", labels=draw(labels), ports=draw(pod_ports()), **network
        )
    rules = [draw(policies(draw(st.sampled_from(NAMES)), f"p-{n}")) for n in range(draw(st.integers(1, 3)))]
    return World(namespaces, pods, rules)


@settings(max_examples=300, deadline=None)
@given(worlds())
def test_items_mean_what_the_policies_say(world: World) -> None:
    planner = Planner()
    for name, namespace in world.namespaces.items():
        planner.apply(NAMESPACES, "", name, view_of(NAMESPACES, namespace))
    for policy in world.policies:
        meta = policy["metadata"]
        planner.apply(POLICIES, meta["namespace"], meta["name"], view_of(POLICIES, policy))
    for address, pod in world.pods.items():
        meta = pod["metadata"]
        planner.apply(PODS, meta["namespace"], meta["name"], view_of(PODS, pod))
        if not pod["spec"].get("hostNetwork"):
            port = a_port(meta["namespace"], meta["name"], address)
            planner.apply(PORTS, meta["namespace"], port["metadata"]["name"], view_of(PORTS, port))
    planner.plan()
    for address, pod in world.pods.items():
        if pod["spec"].get("hostNetwork"):
            continue
        agent = Agent(planner, pod["metadata"]["namespace"])
        for peer in (*world.pods, "10.64.0.200", "192.0.2.1"):
            for ingress in (True, False):
                for protocol in PROTOCOLS:
                    for number in NUMBERS:
                        case = (address, ingress, peer, protocol, number)
                        assert agent.permitted(*case) == world.permitted(*case), case

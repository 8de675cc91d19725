"""Service and its EndpointSlices to the wire item that load balancers and DNS of all hosts hold. Pure.

Who gets new connections (KEP-1669): endpoints that are ready; if there is none (with a local traffic policy: none on
the host), those that are still serving while they terminate; with ``publishNotReadyAddresses`` all of them. Endpoints
on hosts that are not alive come after all of these: a host whose agent is away may well forward still, and a service
must not go because all agents do. Endpoints whose pod is gone are no choice.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from common.messages import Backend, DnsName, ServiceItem, ServicePort
from controller.network.views import Endpoint, ServicePortView, ServiceView, SliceView

HEADLESS = "None"


class Standing(IntEnum):
    """What is known of an endpoint beside its EndpointSlice."""

    SOUND = 0
    HOST_LOST = 1
    """Its host is not alive, as far as can be said."""
    POD_GONE = 2


@dataclass(frozen=True, slots=True)
class CompiledService:
    """``ready`` are the addresses that get connections because they are wanted, not for lack of better ones.

    One that is on its way out is not: that ``publishNotReadyAddresses`` goes on publishing it must not keep it waiting.
    """

    item: ServiceItem
    ready: frozenset[str]


def compile_service(
    view: ServiceView, slices: Sequence[SliceView], standing: Callable[[Endpoint], Standing]
) -> CompiledService:
    """``slices`` in any order; ``standing`` judges one endpoint."""
    sound = _only(slices, lambda endpoint: standing(endpoint) is Standing.SOUND)
    slices = sound if _choosable(view, sound) else _only(slices, lambda each: standing(each) is not Standing.POD_GONE)
    everyone = [endpoint for each in slices for endpoint in each.endpoints]
    wanted = [endpoint for endpoint in everyone if endpoint.ready or view.publish_not_ready]
    ready = frozenset(address for each in wanted if not each.terminating for address in each.addresses)
    headless = view.cluster_ip == HEADLESS
    ports: tuple[ServicePort, ...] = ()
    if headless:
        ports = tuple(_headless_port(port, slices) for port in view.ports if port.name)
    elif not view.external_name:
        ports = tuple(_service_port(view, port, slices) for port in view.ports)
    item = ServiceItem(
        namespace=view.namespace,
        name=view.name,
        cluster_ip="" if headless else view.cluster_ip,
        external_name=view.external_name,
        ports=ports,
        names=_names(view, wanted),
        affinity_s=view.affinity_s,
        internal_local=view.internal_local,
        external_local=view.external_local,
    )
    return CompiledService(item, ready)


def _only(slices: Iterable[SliceView], keep: Callable[[Endpoint], bool]) -> list[SliceView]:
    return [replace(each, endpoints=tuple(filter(keep, each.endpoints))) for each in slices]


def _choosable(view: ServiceView, slices: Iterable[SliceView]) -> bool:
    """Whether any endpoint could get connections."""
    return any(
        endpoint.ready or view.publish_not_ready or (endpoint.serving and endpoint.terminating)
        for each in slices
        for endpoint in each.endpoints
    )


def _service_port(view: ServiceView, port: ServicePortView, slices: Iterable[SliceView]) -> ServicePort:
    found: list[tuple[Endpoint, int]] = []
    for each in slices:
        for target in each.ports:
            if target.name == port.name and target.protocol == port.protocol and target.port:
                found += [(endpoint, target.port) for endpoint in each.endpoints]
    chosen = [pair for pair in found if pair[0].ready or view.publish_not_ready]
    leaving = [pair for pair in found if pair[0].serving and pair[0].terminating and pair not in chosen]
    backends: dict[tuple[str, int], Backend] = {}
    if not chosen or view.internal_local or view.external_local:
        backends |= _backends(leaving, fallback=bool(chosen))
    backends |= _backends(chosen, fallback=False)
    return ServicePort(
        name=port.name,
        protocol=port.protocol,
        port=port.port,
        node_port=port.node_port,
        backends=tuple(backends[key] for key in sorted(backends)),
    )


def _backends(pairs: Iterable[tuple[Endpoint, int]], *, fallback: bool) -> dict[tuple[str, int], Backend]:
    return {
        (address, number): Backend(address=address, port=number, host=endpoint.host, fallback=fallback)
        for endpoint, number in pairs
        for address in endpoint.addresses
    }


def _headless_port(port: ServicePortView, slices: Iterable[SliceView]) -> ServicePort:
    """What its SRV records say: nobody balances it, so the port is that of the endpoints."""
    targets = [
        target.port
        for each in slices
        for target in each.ports
        if (target.name, target.protocol) == (port.name, port.protocol) and target.port
    ]
    return ServicePort(name=port.name, protocol=port.protocol, port=min(targets, default=port.port))


def _names(view: ServiceView, wanted: Iterable[Endpoint]) -> tuple[DnsName, ...]:
    """The service's own addresses first (label ``""``), then one name per endpoint that has a host name."""
    if view.external_name:
        return ()
    if view.cluster_ip != HEADLESS:
        return (DnsName(addresses=(view.cluster_ip,)),) if view.cluster_ip else ()
    own: set[str] = set()
    by_label: dict[str, set[str]] = {}
    for endpoint in wanted:
        own.update(endpoint.addresses)
        if endpoint.hostname:
            by_label.setdefault(endpoint.hostname, set()).update(endpoint.addresses)
    named = tuple(DnsName(label=label, addresses=tuple(sorted(by_label[label]))) for label in sorted(by_label))
    return (DnsName(addresses=tuple(sorted(own))), *named) if own else ()

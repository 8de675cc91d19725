"""What a proxy request to a pod or a service is for: which address and port, how it is reached. Pure.

Spec: kube ``registry/core/pod/strategy.ResourceLocation``, ``registry/core/service/storage`` (``ResourceLocation``).
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from controller.api.status import ApiError, bad_request
from controller.kinds.kind import Object

SCHEMES: Final = ("http", "https")
DEFAULT_PORTS: Final = {"http": 80, "https": 443}
PORT_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class Asked:
    """``[scheme:]name[:port]``, the name part of a proxy's path. ``port`` is empty, a number or a name."""

    scheme: str
    name: str
    port: str


@dataclass(frozen=True, slots=True)
class Place:
    """A server. ``pod`` (its name) is set for what only the pod's own host reaches for sure; ``node`` is that host."""

    address: str
    port: int
    node: str = ""
    pod: str = ""


def asked_of(text: str, kind: str) -> Asked:
    """Raises ``ApiError`` 400."""
    parts = text.split(":")
    match parts:
        case [name]:
            found = Asked("http", name, "")
        case [name, port]:
            found = Asked("http", name, port)
        case [scheme, name, port] if scheme in ("", *SCHEMES):
            found = Asked(scheme or "http", name, port)
        case _:
            raise bad_request(f'invalid {kind} request "{text}": use [http: or https:]name[:port]')
    if not found.name:
        raise bad_request(f'invalid {kind} request "{text}": the name is missing')
    return found


def subpath_of(raw_path: str, target_path_parts: int) -> str:
    """What follows the first ``target_path_parts`` parts of an undecoded path, undecoded; empty or with its slash."""
    found = re.match(rf"(?:/+[^/]+){{{target_path_parts}}}", raw_path)
    return raw_path[found.end() :] if found else ""


def place_of_pod(pod: Object, asked: Asked) -> Place:
    """Where a pod serves. Raises ``ApiError`` 400."""
    name, spec, status = pod["metadata"]["name"], pod.get("spec") or {}, pod.get("status") or {}
    address = status.get("podIP") or ""
    if not address:
        raise bad_request(f'pod "{name}" has no address yet: it is {status.get("phase") or "Pending"}')
    if asked.port:
        port = _number(asked.port)
        if not port:
            raise bad_request(f'invalid port "{asked.port}" of pod "{name}": must be a number from 1 to {PORT_MAX}')
    else:
        declared = (port for each in spec.get("containers") or () for port in each.get("ports") or ())
        port = next((int(each["containerPort"]) for each in declared), DEFAULT_PORTS[asked.scheme])
    node = spec.get("nodeName") or ""
    if spec.get("hostNetwork"):
        return _proxyable(Place(address, port, node))
    return Place(address, port, node, name)


def places_of_service(service: Object, slices: Iterable[Object], asked: Asked) -> list[Place]:
    """Its endpoints that are ready; at least one. Raises ``ApiError`` 503 in upstream's words."""
    name, port_name = service["metadata"]["name"], asked.port
    number = _number(asked.port)
    if number:
        ports = (service.get("spec") or {}).get("ports") or ()
        named = [each.get("name") or "" for each in ports if each.get("port") == number]
        if not named:
            raise unreachable(f'no service port {number} found for service "{name}"')
        port_name = named[0]
    found = []
    for each in slices:
        targets = [port["port"] for port in each.get("ports") or () if (port.get("name") or "") == port_name]
        if not targets or not targets[0]:
            continue
        for endpoint in each.get("endpoints") or ():
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                reference = endpoint.get("targetRef") or {}
                pod = reference.get("name", "") if reference.get("kind") == "Pod" else ""
                found.append(Place(endpoint["addresses"][0], int(targets[0]), endpoint.get("nodeName") or "", pod))
    if not found:
        raise unreachable(f'no endpoints available for service "{name}"')
    return found


def unreachable(message: str) -> ApiError:
    """503 as upstream says it: without a time to retry after, for which clients would wait again and again."""
    return ApiError(503, "ServiceUnavailable", message)


def direct(place: Place) -> Place:
    """``place``, to be dialled from here. Raises ``ApiError`` 400 for this machine's own loopback and the like."""
    return _proxyable(Place(place.address, place.port, place.node))


def _proxyable(place: Place) -> Place:
    address = ipaddress.ip_address(place.address)
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise bad_request(f"address not allowed: {address} is not one that a proxy may reach")
    return place


def _number(text: str) -> int:
    """A port number; 0 for what is none."""
    return int(text) if re.fullmatch(r"[0-9]{1,5}", text) and 0 < int(text) <= PORT_MAX else 0

"""Cluster addresses and node ports of services: checked or chosen before a service is stored.

The cache is what is taken; what was given out but has not come back from the store yet is remembered for a while.
One controller allocates at a time (it holds the lease), so that is enough for uniqueness.
"""

import hashlib
import ipaddress
from collections.abc import Iterator
from typing import Final

from common.clock import Clock
from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import ApiError, invalid
from controller.kinds.kind import FieldError, Object, ResourceKey
from controller.store.cache import Cache, Change

SERVICES: Final = ResourceKey("", "services")
NODE_PORT_MIN: Final = 30000
NODE_PORT_MAX: Final = 32767
PENDING_S: Final = 30.0
EXTERNAL_IPS: Final = "spec.externalIPs is deprecated and not served by this cluster; use type NodePort"
"""Whoever may make services could take any address from others by it (CVE-2020-8554, KEP-5707)."""
_STATIC_SHARE: Final = 16
_STATIC_MAX: Final = 256
_EXTERNAL: Final = ("NodePort", "LoadBalancer")


class ServiceAllocator:
    """An admission step (``admit``) that knows what every stored service holds."""

    def __init__(self, cache: Cache, clock: Clock, service_cidr: str) -> None:
        self._clock = clock
        self._network = ipaddress.IPv4Network(service_cidr)
        self._held: dict[str, tuple[str, ...]] = {}
        """Claims of each stored service, by its uid."""
        self._taken: dict[str, str] = {}
        """Claim (``10.96.0.1`` or ``TCP/30000``) -> uid that holds it."""
        self._pending: dict[str, tuple[str, float]] = {}
        cache.subscribe([SERVICES], self._changed)
        for entry in cache.list(SERVICES):
            self._hold(entry.uid, entry.decode())

    def _changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._release(change.entry.uid)
        else:
            self._hold(change.entry.uid, change.entry.decode())

    def _release(self, uid: str) -> None:
        for claim in self._held.pop(uid, ()):
            if self._taken.get(claim) == uid:
                del self._taken[claim]

    def _hold(self, uid: str, service: Object) -> None:
        self._release(uid)
        claims = tuple(claims_of(service))
        self._held[uid] = claims
        for claim in claims:
            self._taken[claim] = uid
            self._pending.pop(claim, None)

    def _is_free(self, claim: str, uid: str) -> bool:
        holder = self._taken.get(claim)
        if holder is not None:
            return holder == uid
        pending = self._pending.get(claim)
        return pending is None or pending[0] == uid or pending[1] < self._clock.monotonic()

    def _claim(self, claim: str, uid: str) -> None:
        self._pending[claim] = (uid, self._clock.monotonic() + PENDING_S)

    def admit(self, request: AdmissionRequest, lookup: Lookup) -> None:
        """Complete a service's addresses and node ports. Raises ``ApiError`` 422 for what is taken or out of range."""
        del lookup
        if request.kind.key != SERVICES or request.operation == "DELETE" or request.subresource:
            return
        spec = request.obj.setdefault("spec", {})
        if spec.get("externalIPs"):
            request.warnings.append(EXTERNAL_IPS)
        uid = request.obj["metadata"].get("uid", "")
        if spec.get("type") == "ExternalName":
            return
        claims: list[str] = []
        self._address(request, spec, uid, claims)
        if spec.get("type") in _EXTERNAL:
            self._node_ports(request, spec, uid, claims)
        if not request.dry_run:
            for claim in claims:
                self._claim(claim, uid)

    def _address(self, request: AdmissionRequest, spec: Object, uid: str, claims: list[str]) -> None:
        given = spec.get("clusterIP") or next(iter(spec.get("clusterIPs") or []), "")
        if given == "None":
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return
        if not given:
            given = self._choose_address(request, uid)
        else:
            self._check_address(request, given, uid)
        spec["clusterIP"], spec["clusterIPs"] = given, [given]
        claims.append(given)

    def _check_address(self, request: AdmissionRequest, given: str, uid: str) -> None:
        try:
            inside = ipaddress.IPv4Address(given) in self._network
        except ValueError:
            return  # Validation says it better.
        detail = ""
        if not inside:
            detail = f"failed to allocate IP {given}: the provided IP ({given}) is not in the valid range. "
            detail += f"The range of valid IPs is {self._network}"
        elif not self._is_free(given, uid):
            detail = f"failed to allocate IP {given}: provided IP is already allocated"
        if detail:
            raise _refusal(request, FieldError("FieldValueInvalid", "spec.clusterIPs", detail, [given]))

    def _choose_address(self, request: AdmissionRequest, uid: str) -> str:
        for address in candidates(self._network, uid or request.obj["metadata"].get("name", "")):
            if self._is_free(address, uid):
                return address
        raise ApiError(500, "InternalError", f"failed to allocate a serviceIP: range {self._network} is full")

    def _node_ports(self, request: AdmissionRequest, spec: Object, uid: str, claims: list[str]) -> None:
        if spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
            return
        for index, port in enumerate(spec.get("ports") or []):
            number, protocol = port.get("nodePort"), port.get("protocol", "TCP")
            if number:
                self._check_port(request, index, protocol, number, uid)
            else:
                number = self._choose_port(protocol, uid, port.get("port", 0), claims)
                port["nodePort"] = number
            claims.append(f"{protocol}/{number}")

    def _check_port(self, request: AdmissionRequest, index: int, protocol: str, number: int, uid: str) -> None:
        detail = ""
        if not NODE_PORT_MIN <= number <= NODE_PORT_MAX:
            detail = (
                f"provided port is not in the valid range. The range of valid ports is {NODE_PORT_MIN}-{NODE_PORT_MAX}"
            )
        elif not self._is_free(f"{protocol}/{number}", uid):
            detail = "provided port is already allocated"
        if detail:
            raise _refusal(request, FieldError("FieldValueInvalid", f"spec.ports[{index}].nodePort", detail, number))

    def _choose_port(self, protocol: str, uid: str, port: int, claims: list[str]) -> int:
        size = NODE_PORT_MAX - NODE_PORT_MIN + 1
        start = _hash(f"{uid}/{protocol}/{port}") % size
        for step in range(size):
            number = NODE_PORT_MIN + (start + step) % size
            claim = f"{protocol}/{number}"
            if claim not in claims and self._is_free(claim, uid):
                return number
        raise ApiError(500, "InternalError", "failed to allocate a nodePort: range is full")


def claims_of(service: Object) -> Iterator[str]:
    """What a stored service holds: its address, and ``<protocol>/<node port>`` each."""
    spec = service.get("spec") or {}
    address = spec.get("clusterIP")
    if address and address != "None":
        yield address
    for port in spec.get("ports") or []:
        if port.get("nodePort"):
            yield f"{port.get('protocol', 'TCP')}/{port['nodePort']}"


def candidates(network: ipaddress.IPv4Network, seed: str) -> Iterator[str]:
    """Addresses in the order to try: the upper part from a place given by ``seed``, then the lower part.

    The lower part (up to 256 addresses) is left to those who ask for a certain address, as upstream does.
    """
    first, size = int(network.network_address), network.num_addresses
    static = min(max(16, size // _STATIC_SHARE), _STATIC_MAX)
    low = min(static + 1, size - 1)
    upper = size - 1 - low
    start = _hash(seed) % upper if upper else 0
    for step in range(upper):
        yield str(ipaddress.IPv4Address(first + low + (start + step) % upper))
    for offset in range(1, low):
        yield str(ipaddress.IPv4Address(first + offset))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _refusal(request: AdmissionRequest, error: FieldError) -> ApiError:
    return invalid("", "Service", request.obj["metadata"].get("name", ""), [error])

"""EndpointSlices and the older Endpoints."""

from typing import Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, at, computed
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, required

_ADDRESS_TYPES: Final = ("FQDN", "IPv4", "IPv6")
_PROTOCOLS: Final = ("SCTP", "TCP", "UDP")
_SHOWN_MAX: Final = 3


def _default_slice(obj: Object) -> None:
    for port in obj.get("ports") or []:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")
    obj.setdefault("endpoints", [])


def _validate_slice(obj: Object) -> Errors:
    errors = rules.one_of("addressType", obj.get("addressType"), _ADDRESS_TYPES)
    for index, endpoint in enumerate(obj.get("endpoints") or []):
        here, addresses = f"endpoints[{index}]", endpoint.get("addresses") or []
        if not addresses:
            errors.append(required(f"{here}.addresses", "must contain at least 1 address"))
        for position, address in enumerate(addresses):
            if obj.get("addressType") in ("IPv4", "IPv6"):
                errors += rules.address(f"{here}.addresses[{position}]", address)
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or []):
        here, name = f"ports[{index}]", port.get("name") or ""
        if name in names:
            errors.append(rules.duplicate(f"{here}.name", name))
        names.add(name)
        if name:
            errors += rules.name(f"{here}.name", name, rules.label_problems)
        errors += rules.one_of(f"{here}.protocol", port.get("protocol"), _PROTOCOLS)
        if port.get("port") is not None:
            errors += rules.port_number(f"{here}.port", port["port"])
    return errors


def _validate_slice_update(obj: Object, old: Object) -> Errors:
    return rules.immutable("addressType", obj.get("addressType"), old.get("addressType"))


def _shown(values: list[str], unset: str = "<unset>") -> str:
    if not values:
        return unset
    more = f" + {len(values) - _SHOWN_MAX} more..." if len(values) > _SHOWN_MAX else ""
    return ",".join(values[:_SHOWN_MAX]) + more


def _slice_ports(obj: Object) -> str:
    return _shown([str(port.get("port", "*")) for port in obj.get("ports") or []])


def _slice_endpoints(obj: Object) -> str:
    return _shown([a for endpoint in obj.get("endpoints") or [] for a in endpoint.get("addresses") or []])


ENDPOINT_SLICE: Final = Kind(
    group="discovery.k8s.io",
    version="v1",
    kind="EndpointSlice",
    plural="endpointslices",
    schema="io.k8s.api.discovery.v1.EndpointSlice",
    singular="endpointslice",
    columns=(
        at("AddressType", "addressType"),
        computed("Ports", _slice_ports),
        computed("Endpoints", _slice_endpoints),
        AGE,
    ),
    generation_fields=("endpoints", "ports", "addressType"),
    default=_default_slice,
    validate=_validate_slice,
    validate_update=_validate_slice_update,
)


def _default_endpoints(obj: Object) -> None:
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _validate_endpoints(obj: Object) -> Errors:
    errors: Errors = []
    for index, subset in enumerate(obj.get("subsets") or []):
        here = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            errors.append(required(here, "must specify `addresses` or `notReadyAddresses`"))
        for key in ("addresses", "notReadyAddresses"):
            for position, address in enumerate(subset.get(key) or []):
                errors += rules.address(f"{here}.{key}[{position}].ip", address.get("ip") or "")
        for position, port in enumerate(subset.get("ports") or []):
            if not port.get("name") and len(subset["ports"]) > 1:
                errors.append(required(f"{here}.ports[{position}].name"))
            errors += rules.port_number(f"{here}.ports[{position}].port", port.get("port", 0))
            errors += rules.one_of(f"{here}.ports[{position}].protocol", port.get("protocol"), _PROTOCOLS)
    return errors


def _endpoints_cell(obj: Object) -> str:
    found: list[str] = []
    for subset in obj.get("subsets") or []:
        for port in subset.get("ports") or [{}]:
            for address in subset.get("addresses") or []:
                found.append(f"{address.get('ip')}:{port['port']}" if port else str(address.get("ip")))
    return _shown(found, NONE)


ENDPOINTS: Final = Kind(
    group="",
    version="v1",
    kind="Endpoints",
    plural="endpoints",
    schema="io.k8s.api.core.v1.Endpoints",
    singular="endpoints",
    short_names=("ep",),
    columns=(computed("Endpoints", _endpoints_cell), AGE),
    generation_fields=(),
    default=_default_endpoints,
    validate=_validate_endpoints,
)

KINDS: Final = (ENDPOINT_SLICE, ENDPOINTS)

"""Kinds of ``network.sphere.io``: segments, address blocks and ports of the overlay."""

import ipaddress
from typing import Final

from controller.kinds import rules
from controller.kinds.columns import AGE, at, computed, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.own_schemas import GROUP, PREFIX
from controller.kinds.rules import Errors, invalid, required

VNI_MAX: Final = (1 << 24) - 1


def _validate_segment(segment: Object) -> Errors:
    spec = segment.get("spec") or {}
    errors: Errors = []
    vni = spec.get("vni")
    if vni is None:
        errors.append(required("spec.vni"))
    elif not 1 <= vni <= VNI_MAX:
        errors.append(invalid("spec.vni", vni, f"must be between 1 and {VNI_MAX}, inclusive"))
    for index, subnet in enumerate(spec.get("subnets") or []):
        errors += rules.cidr(f"spec.subnets[{index}]", subnet)
    return errors


def _validate_segment_update(segment: Object, old: Object) -> Errors:
    return rules.immutable("spec.vni", dig(segment, "spec.vni"), dig(old, "spec.vni"))


def _validate_block(block: Object) -> Errors:
    spec = block.get("spec") or {}
    errors = [required(f"spec.{key}") for key in ("segment", "host") if not spec.get(key)]
    return errors + (rules.cidr("spec.cidr", spec["cidr"]) if spec.get("cidr") else [required("spec.cidr")])


def _validate_block_update(block: Object, old: Object) -> Errors:
    errors: Errors = []
    for key in ("cidr", "segment"):
        errors += rules.immutable(f"spec.{key}", dig(block, f"spec.{key}"), dig(old, f"spec.{key}"))
    return errors


def _default_port(port: Object) -> None:
    port.setdefault("status", {}).setdefault("phase", "Bound")


def _validate_port(port: Object) -> Errors:
    spec = port.get("spec") or {}
    errors = [required(f"spec.{key}") for key in ("podName", "podUID", "host", "segment") if not spec.get(key)]
    try:
        ipaddress.IPv4Address(spec.get("address") or "")
    except ValueError:
        errors.append(invalid("spec.address", spec.get("address") or "", "must be a valid IPv4 address"))
    return errors


def _validate_port_update(port: Object, old: Object) -> Errors:
    return rules.immutable("spec", port.get("spec"), old.get("spec"))


SEGMENT: Final = Kind(
    group=GROUP,
    version="v1",
    kind="Segment",
    plural="segments",
    schema=f"{PREFIX}Segment",
    namespaced=False,
    singular="segment",
    short_names=("seg",),
    categories=("network",),
    subresources=("status",),
    columns=(
        at("VNI", "spec.vni", "integer"),
        computed("Subnets", lambda obj: ",".join(dig(obj, "spec.subnets", []))),
        AGE,
    ),
    validate=_validate_segment,
    validate_update=_validate_segment_update,
)

ADDRESS_BLOCK: Final = Kind(
    group=GROUP,
    version="v1",
    kind="AddressBlock",
    plural="addressblocks",
    schema=f"{PREFIX}AddressBlock",
    namespaced=False,
    singular="addressblock",
    categories=("network",),
    subresources=("status",),
    columns=(at("CIDR", "spec.cidr"), at("Segment", "spec.segment"), at("Host", "spec.host"), AGE),
    selectable_fields={
        "spec.host": lambda obj: str(dig(obj, "spec.host", "")),
        "spec.segment": lambda obj: str(dig(obj, "spec.segment", "")),
    },
    validate=_validate_block,
    validate_update=_validate_block_update,
)

PORT: Final = Kind(
    group=GROUP,
    version="v1",
    kind="Port",
    plural="ports",
    schema=f"{PREFIX}Port",
    singular="port",
    categories=("network",),
    subresources=("status",),
    columns=(
        at("Pod", "spec.podName"),
        at("Address", "spec.address"),
        at("Host", "spec.host"),
        at("Phase", "status.phase"),
        AGE,
        at("MAC", "spec.mac", priority=1),
        at("VNI", "spec.vni", "integer", priority=1),
    ),
    selectable_fields={
        "spec.host": lambda obj: str(dig(obj, "spec.host", "")),
        "spec.podUID": lambda obj: str(dig(obj, "spec.podUID", "")),
        "spec.podName": lambda obj: str(dig(obj, "spec.podName", "")),
        "status.phase": lambda obj: str(dig(obj, "status.phase", "")),
    },
    default=_default_port,
    validate=_validate_port,
    validate_update=_validate_port_update,
)

KINDS: Final = (SEGMENT, ADDRESS_BLOCK, PORT)

"""Definitions of the kinds that are ours, and fields we add to Kubernetes' own. OpenAPI v2 shape."""

from typing import Any, Final

_META: Final = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_LIST_META: Final = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"}
_CONDITION: Final = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.Condition"}
GROUP: Final = "network.sphere.io"
PREFIX: Final = "io.sphere.network.v1."


def _text(description: str) -> dict[str, Any]:
    return {"type": "string", "description": description}


def _number(description: str, form: str = "int32") -> dict[str, Any]:
    return {"type": "integer", "format": form, "description": description}


def _conditions() -> dict[str, Any]:
    return {
        "type": "array",
        "description": "Latest observations. `Realized` says that every host concerned has it in its kernel.",
        "items": _CONDITION,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "x-kubernetes-patch-strategy": "merge",
        "x-kubernetes-patch-merge-key": "type",
    }


def _kind(
    kind: str, description: str, spec: dict[str, Any], status: dict[str, Any], required: list[str]
) -> dict[str, Any]:
    """The three definitions of a kind (object, spec, status) and its list."""
    ref = {"$ref": f"#/$defs/{PREFIX}{kind}"}
    gvk = [{"group": GROUP, "version": "v1", "kind": kind}]
    head = {"apiVersion": _text("Version of this representation."), "kind": _text("Kind of this object.")}
    return {
        f"{PREFIX}{kind}": {
            "type": "object",
            "description": description,
            "properties": {
                **head,
                "metadata": {**_META, "description": "Standard object's metadata."},
                "spec": {"$ref": f"#/$defs/{PREFIX}{kind}Spec", "description": f"Desired state of the {kind}."},
                "status": {"$ref": f"#/$defs/{PREFIX}{kind}Status", "description": f"Observed state of the {kind}."},
            },
            "x-kubernetes-group-version-kind": gvk,
        },
        f"{PREFIX}{kind}Spec": {
            "type": "object",
            "description": f"{kind}Spec is the desired state of a {kind}.",
            "properties": spec,
            "required": required,
        },
        f"{PREFIX}{kind}Status": {
            "type": "object",
            "description": f"{kind}Status is the observed state of a {kind}.",
            "properties": status,
        },
        f"{PREFIX}{kind}List": {
            "type": "object",
            "description": f"{kind}List is a list of {kind}s.",
            "properties": {**head, "metadata": _LIST_META, "items": {"type": "array", "items": ref}},
            "required": ["items"],
            "x-kubernetes-group-version-kind": [{"group": GROUP, "version": "v1", "kind": f"{kind}List"}],
        },
    }


METRICS_GROUP: Final = "metrics.k8s.io"
METRICS_PREFIX: Final = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
_TIME: Final = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.Time"}
_USAGE: Final = {
    "type": "object",
    "description": "CPU in cores and memory working set in bytes, averaged over the window.",
    "additionalProperties": {"$ref": "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"},
}


def _measured(kind: str, description: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Definitions of one kind of ``metrics.k8s.io`` and its list."""
    head = {"apiVersion": _text("Version of this representation."), "kind": _text("Kind of this object.")}
    items = {"type": "array", "items": {"$ref": f"#/$defs/{METRICS_PREFIX}{kind}"}}
    common = {"timestamp": _TIME, "window": _text("Time the measurement covers, as a Go duration.")}

    def gvk(name: str) -> list[dict[str, str]]:
        return [{"group": METRICS_GROUP, "version": "v1beta1", "kind": name}]

    return {
        f"{METRICS_PREFIX}{kind}": {
            "type": "object",
            "description": description,
            "properties": {**head, "metadata": _META, **common, **fields},
            "x-kubernetes-group-version-kind": gvk(kind),
        },
        f"{METRICS_PREFIX}{kind}List": {
            "type": "object",
            "properties": {**head, "metadata": _LIST_META, "items": items},
            "required": ["items"],
            "x-kubernetes-group-version-kind": gvk(f"{kind}List"),
        },
    }


OWN_DEFINITIONS: Final[dict[str, Any]] = {
    **_measured("NodeMetrics", "NodeMetrics is what a node uses.", {"usage": _USAGE}),
    **_measured(
        "PodMetrics",
        "PodMetrics is what the containers of a pod use.",
        {
            "containers": {
                "type": "array",
                "items": {"type": "object", "properties": {"name": _text("Container."), "usage": _USAGE}},
            }
        },
    ),
    **_kind(
        "Segment",
        "Segment is the overlay network of one namespace, whose name it bears.",
        {
            "vni": _number("VXLAN network identifier, 1 to 16777215. Immutable."),
            "subnets": {
                "type": "array",
                "description": "IPv4 ranges that its addresses come from. Grows when they are full.",
                "items": _text("IPv4 range in CIDR notation."),
                "x-kubernetes-list-type": "atomic",
            },
        },
        {"conditions": _conditions()},
        ["vni", "subnets"],
    ),
    **_kind(
        "AddressBlock",
        "AddressBlock gives a small range of a segment's addresses to one host.",
        {
            "cidr": _text("The range. Immutable."),
            "segment": _text("Name of the segment. Immutable."),
            "host": _text("Name of the node that owns the range."),
        },
        {"conditions": _conditions()},
        ["cidr", "segment", "host"],
    ),
    **_kind(
        "Port",
        "Port is the network attachment of one pod; its existence claims the address.",
        {
            "podName": _text("Name of the pod, in the same namespace."),
            "podUID": _text("UID of the pod."),
            "host": _text("Name of the node the pod is bound to."),
            "address": _text("IPv4 address."),
            "mac": _text("MAC address."),
            "vni": _number("VXLAN network identifier of the segment."),
            "segment": _text("Name of the segment."),
        },
        {
            "phase": _text("Bound while the pod exists; Quarantined until every host has forgotten the address."),
            "releaseRevision": _number("Revision that every host must reach before the address is free.", "int64"),
            "conditions": _conditions(),
        },
        ["podName", "podUID", "host", "address", "mac", "vni", "segment"],
    ),
    f"{PREFIX}NetworkPolicyStatus": {
        "type": "object",
        "description": "NetworkPolicyStatus says where the policy is in force.",
        "properties": {"conditions": _conditions()},
    },
}

EXTRA_PROPERTIES: Final[dict[str, dict[str, Any]]] = {
    "io.k8s.api.networking.v1.NetworkPolicy": {
        "status": {"$ref": f"#/$defs/{PREFIX}NetworkPolicyStatus", "description": "Where the policy is in force."}
    },
}

"""Stable kinds that nothing here acts on yet: stored, validated by schema, discovered and explained.

One row per kind. A kind that grows behaviour moves to a file of its own.
"""

from typing import Final, NamedTuple

from controller.kinds.columns import AGE, at, count
from controller.kinds.kind import Column, Kind


class Row(NamedTuple):
    """A kind without behaviour. ``sub`` holds its subresources, space separated; so does ``short``."""

    kind: str
    plural: str
    short: str = ""
    namespaced: bool = True
    sub: str = ""
    categories: str = ""
    columns: tuple[Column, ...] = (AGE,)
    generation: str = "spec"


_TABLE: Final[dict[tuple[str, str, str], tuple[Row, ...]]] = {
    ("", "v1", "io.k8s.api.core.v1"): (
        Row("ComponentStatus", "componentstatuses", "cs", False),
        Row(
            "PersistentVolume",
            "persistentvolumes",
            "pv",
            False,
            "status",
            columns=(
                at("Capacity", "spec.capacity.storage"),
                at("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"),
                at("Status", "status.phase"),
                at("StorageClass", "spec.storageClassName"),
                AGE,
            ),
        ),
        Row(
            "PersistentVolumeClaim",
            "persistentvolumeclaims",
            "pvc",
            True,
            "status",
            columns=(
                at("Status", "status.phase"),
                at("Volume", "spec.volumeName"),
                at("Capacity", "status.capacity.storage"),
                at("StorageClass", "spec.storageClassName"),
                AGE,
            ),
        ),
        Row("PodTemplate", "podtemplates", generation="template"),
    ),
    ("policy", "v1", "io.k8s.api.policy.v1"): (
        Row(
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            "pdb",
            True,
            "status",
            columns=(
                at("Min Available", "spec.minAvailable", empty="N/A"),
                at("Max Unavailable", "spec.maxUnavailable", empty="N/A"),
                at("Allowed Disruptions", "status.disruptionsAllowed", "integer", empty=0),
                AGE,
            ),
        ),
    ),
    ("networking.k8s.io", "v1", "io.k8s.api.networking.v1"): (
        Row("IPAddress", "ipaddresses", "ip", False, columns=(at("ParentRef", "spec.parentRef.name"), AGE)),
        Row(
            "Ingress",
            "ingresses",
            "ing",
            True,
            "status",
            columns=(at("Class", "spec.ingressClassName", empty="<none>"), AGE),
        ),
        Row("IngressClass", "ingressclasses", "", False, columns=(at("Controller", "spec.controller"), AGE)),
        Row("ServiceCIDR", "servicecidrs", "", False, "status"),
    ),
    ("storage.k8s.io", "v1", "io.k8s.api.storage.v1"): (
        Row("CSIDriver", "csidrivers", "", False),
        Row("CSINode", "csinodes", "", False),
        Row("CSIStorageCapacity", "csistoragecapacities"),
        Row(
            "StorageClass",
            "storageclasses",
            "sc",
            False,
            columns=(at("Provisioner", "provisioner"), at("ReclaimPolicy", "reclaimPolicy"), AGE),
            generation="",
        ),
        Row("VolumeAttachment", "volumeattachments", "", False, "status"),
        Row("VolumeAttributesClass", "volumeattributesclasses", "vac", False, generation=""),
    ),
    ("node.k8s.io", "v1", "io.k8s.api.node.v1"): (
        Row("RuntimeClass", "runtimeclasses", "", False, columns=(at("Handler", "handler"), AGE), generation=""),
    ),
    ("admissionregistration.k8s.io", "v1", "io.k8s.api.admissionregistration.v1"): (
        Row("MutatingAdmissionPolicy", "mutatingadmissionpolicies", "", False),
        Row("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "", False),
        Row(
            "MutatingWebhookConfiguration",
            "mutatingwebhookconfigurations",
            "",
            False,
            columns=(count("Webhooks", "webhooks"), AGE),
            generation="webhooks",
        ),
        Row("ValidatingAdmissionPolicy", "validatingadmissionpolicies", "", False, "status"),
        Row("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "", False),
        Row(
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            "",
            False,
            columns=(count("Webhooks", "webhooks"), AGE),
            generation="webhooks",
        ),
    ),
    ("apiregistration.k8s.io", "v1", "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1"): (
        Row("APIService", "apiservices", "", False, "status", "api-extensions"),
    ),
    ("flowcontrol.apiserver.k8s.io", "v1", "io.k8s.api.flowcontrol.v1"): (
        Row(
            "FlowSchema",
            "flowschemas",
            "",
            False,
            "status",
            columns=(
                at("PriorityLevel", "spec.priorityLevelConfiguration.name"),
                at("MatchingPrecedence", "spec.matchingPrecedence"),
                AGE,
            ),
        ),
        Row(
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
            "",
            False,
            "status",
            columns=(at("Type", "spec.type"), AGE),
        ),
    ),
    ("resource.k8s.io", "v1", "io.k8s.api.resource.v1"): (
        Row("DeviceClass", "deviceclasses", "", False),
        Row("ResourceClaim", "resourceclaims", "", True, "status"),
        Row("ResourceClaimTemplate", "resourceclaimtemplates"),
        Row("ResourceSlice", "resourceslices", "", False),
    ),
}


def _build(group: str, version: str, prefix: str, row: Row) -> Kind:
    return Kind(
        group=group,
        version=version,
        kind=row.kind,
        plural=row.plural,
        schema=f"{prefix}.{row.kind}",
        namespaced=row.namespaced,
        singular=row.kind.lower(),
        short_names=tuple(row.short.split()),
        categories=tuple(row.categories.split()),
        subresources=tuple(row.sub.split()),
        columns=row.columns,
        generation_fields=(row.generation,) if row.generation else (),
    )


KINDS: Final = tuple(
    _build(group, version, prefix, row) for (group, version, prefix), rows in _TABLE.items() for row in rows
)

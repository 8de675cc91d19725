"""Volumes, claims, storage classes and what CSI drivers say of themselves: defaults, validation, columns.

Who binds claims: ``controller/reconcilers/volume_binding.py``. Drivers (CSI) are not called.
Spec: kube ``pkg/apis/storage`` and ``pkg/apis/core``, ``v1/defaults.go`` and ``validation``.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, at, computed, count, dig
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, required

GROUP: Final = "storage.k8s.io"
_SHORT_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_VOLUME_MODES: Final = ("Block", "Filesystem")
_POLICIES: Final = ("Delete", "Recycle", "Retain")
_BINDING_MODES: Final = ("Immediate", "WaitForFirstConsumer")
_LIFECYCLES: Final = ("Ephemeral", "Persistent")
_GROUP_POLICIES: Final = ("File", "None", "ReadWriteOnceWithFSType")
_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
# What a volume's spec has beside its source.
_VOLUME_FIELDS: Final = frozenset(
    (
        *("accessModes", "capacity", "claimRef", "mountOptions", "nodeAffinity", "persistentVolumeReclaimPolicy"),
        *("storageClassName", "volumeAttributesClassName", "volumeMode"),
    )
)


def _modes(path: str) -> Callable[[Object], str]:
    return lambda obj: ",".join(_SHORT_MODES.get(str(mode), str(mode)) for mode in dig(obj, path, []))


def _phase(obj: Object) -> str:
    return "Terminating" if dig(obj, "metadata.deletionTimestamp") else str(dig(obj, "status.phase") or "")


def _pending(obj: Object) -> None:
    obj["status"] = {"phase": "Pending"}


# ---- volumes and claims --------------------------------------------------------------------------------------


def _default_volume(volume: Object) -> None:
    spec = volume.setdefault("spec", {})
    spec["persistentVolumeReclaimPolicy"] = spec.get("persistentVolumeReclaimPolicy") or "Retain"
    spec["volumeMode"] = spec.get("volumeMode") or "Filesystem"
    if isinstance(spec.get("hostPath"), dict):
        spec["hostPath"].setdefault("type", "")


def _access_modes(modes: Sequence[Any], path: str) -> Errors:
    if not modes:
        return [required(path, "at least 1 access mode is required")]
    errors: Errors = []
    for mode in modes:
        errors += rules.one_of(path, mode, _SHORT_MODES)
    if "ReadWriteOncePod" in modes and len(modes) > 1:
        errors.append(forbidden(path, "may not use ReadWriteOncePod with other access modes"))
    return errors


def _sources(spec: Object) -> dict[str, Any]:
    return {key: value for key, value in spec.items() if key not in _VOLUME_FIELDS}


def _validate_volume(volume: Object) -> Errors:
    spec = volume.get("spec") or {}
    errors = _access_modes(spec.get("accessModes") or [], "spec.accessModes")
    capacity = spec.get("capacity") or {}
    if not capacity:
        errors.append(required("spec.capacity"))
    elif set(capacity) != {"storage"}:
        errors.append(rules.not_supported("spec.capacity", sorted(capacity), ("storage",)))
    for name, amount in capacity.items():
        errors += rules.quantity(f"spec.capacity[{name}]", amount)
    errors += rules.one_of("spec.persistentVolumeReclaimPolicy", spec.get("persistentVolumeReclaimPolicy"), _POLICIES)
    errors += rules.one_of("spec.volumeMode", spec.get("volumeMode"), _VOLUME_MODES)
    found = sorted(_sources(spec))
    if not found:
        errors.append(required("spec", "must specify a volume type"))
    errors += [forbidden(f"spec.{name}", "may not specify more than 1 volume type") for name in found[1:]]
    if "local" in found:
        if not dig(spec, "local.path"):
            errors.append(required("spec.local.path"))
        if not dig(spec, "nodeAffinity.required"):
            errors.append(required("spec.nodeAffinity", "Local volume requires node affinity"))
    return errors


def _validate_volume_update(volume: Object, old: Object) -> Errors:
    spec, before = volume.get("spec") or {}, old.get("spec") or {}
    errors: Errors = []
    if _sources(spec) != _sources(before):
        errors.append(
            forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        )
    return errors + rules.immutable("spec.volumeMode", spec.get("volumeMode"), before.get("volumeMode"))


def _claim_cell(volume: Object) -> str:
    claim = dig(volume, "spec.claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _default_claim(claim: Object) -> None:
    spec = claim.setdefault("spec", {})
    spec["volumeMode"] = spec.get("volumeMode") or "Filesystem"


def _validate_claim(claim: Object) -> Errors:
    spec = claim.get("spec") or {}
    errors = rules.label_selector("spec.selector", spec.get("selector"))
    errors += _access_modes(spec.get("accessModes") or [], "spec.accessModes")
    amount = dig(spec, "resources.requests.storage")
    if amount is None:
        errors.append(required("spec.resources[storage]"))
    elif problems := rules.quantity("spec.resources[storage]", amount):
        errors += problems
    elif str(amount) == "0":
        errors.append(invalid("spec.resources[storage]", amount, "must be greater than zero"))
    errors += rules.one_of("spec.volumeMode", spec.get("volumeMode"), _VOLUME_MODES)
    return errors


def _validate_claim_update(claim: Object, old: Object) -> Errors:
    spec, before = dict(claim.get("spec") or {}), dict(old.get("spec") or {})
    if not before.get("volumeName"):
        before["volumeName"] = spec.get("volumeName")  # binding sets it, once
    if before.get("storageClassName") is None:
        before["storageClassName"] = spec.get("storageClassName")
    for each in (spec, before):
        each.pop("resources", None)
        each.pop("volumeAttributesClassName", None)
    if {k: v for k, v in spec.items() if v is not None} != {k: v for k, v in before.items() if v is not None}:
        detail = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        return [forbidden("spec", detail)]
    return []


# ---- classes -------------------------------------------------------------------------------------------------


def _default_class(found: Object) -> None:
    found["reclaimPolicy"] = found.get("reclaimPolicy") or "Delete"
    found["volumeBindingMode"] = found.get("volumeBindingMode") or "Immediate"


def _validate_class(found: Object) -> Errors:
    errors = [] if found.get("provisioner") else [required("provisioner")]
    errors += rules.one_of("reclaimPolicy", found.get("reclaimPolicy"), ("Delete", "Retain"))
    return errors + rules.one_of("volumeBindingMode", found.get("volumeBindingMode"), _BINDING_MODES)


def _unchanged(*fields: str) -> Callable[[Object, Object], Errors]:
    """Fields that upstream refuses with a sentence of their own."""

    def judge(found: Object, old: Object) -> Errors:
        return [
            forbidden(field, f"updates to {field} are forbidden.")
            for field in fields
            if (found.get(field) or None) != (old.get(field) or None)
        ]

    return judge


def _validate_class_update(found: Object, old: Object) -> Errors:
    errors = _unchanged("parameters", "provisioner", "reclaimPolicy")(found, old)
    return errors + rules.immutable("volumeBindingMode", found.get("volumeBindingMode"), old.get("volumeBindingMode"))


def _validate_attributes(found: Object) -> Errors:
    errors = [] if found.get("driverName") else [required("driverName")]
    if not found.get("parameters"):
        errors.append(required("parameters", "must contain at least one key/value pair"))
    return errors


def _class_name(found: Object) -> str:
    name = str(dig(found, "metadata.name", ""))
    return f"{name} (default)" if dig(found, "metadata.annotations", {}).get(_DEFAULT_CLASS) == "true" else name


# ---- drivers -------------------------------------------------------------------------------------------------


def _default_driver(driver: Object) -> None:
    spec = driver.setdefault("spec", {})
    spec.setdefault("attachRequired", True)
    spec["fsGroupPolicy"] = spec.get("fsGroupPolicy") or "ReadWriteOnceWithFSType"
    for name in ("podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"):
        spec.setdefault(name, False)
    spec["volumeLifecycleModes"] = spec.get("volumeLifecycleModes") or ["Persistent"]


def _validate_driver(driver: Object) -> Errors:
    spec = driver.get("spec") or {}
    errors = rules.one_of("spec.fsGroupPolicy", spec.get("fsGroupPolicy"), _GROUP_POLICIES)
    for mode in spec.get("volumeLifecycleModes") or []:
        errors += rules.one_of("spec.volumeLifecycleModes", mode, _LIFECYCLES)
    return errors


def _validate_driver_update(driver: Object, old: Object) -> Errors:
    errors: Errors = []
    for name in ("attachRequired", "volumeLifecycleModes"):
        errors += rules.immutable(f"spec.{name}", dig(driver, f"spec.{name}"), dig(old, f"spec.{name}"))
    return errors


def _audiences(driver: Object) -> str:
    return ",".join(str(each.get("audience")) for each in dig(driver, "spec.tokenRequests", [])) or NONE


def _validate_node(node: Object) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for index, driver in enumerate(dig(node, "spec.drivers", [])):
        here = f"spec.drivers[{index}]"
        errors += [required(f"{here}.{key}") for key in ("name", "nodeID") if not driver.get(key)]
        if driver.get("name") in seen:
            errors.append(rules.duplicate(f"{here}.name", driver["name"]))
        seen.add(str(driver.get("name")))
    return errors


def _validate_capacity(capacity: Object) -> Errors:
    errors = rules.name("storageClassName", capacity.get("storageClassName"), rules.subdomain_problems)
    for name in ("capacity", "maximumVolumeSize"):
        if capacity.get(name) is not None:
            errors += rules.quantity(name, capacity[name])
    return errors + rules.label_selector("nodeTopology", capacity.get("nodeTopology"))


def _validate_capacity_update(capacity: Object, old: Object) -> Errors:
    errors = rules.immutable("nodeTopology", capacity.get("nodeTopology"), old.get("nodeTopology"))
    return errors + rules.immutable("storageClassName", capacity.get("storageClassName"), old.get("storageClassName"))


def _validate_attachment(attachment: Object) -> Errors:
    spec = attachment.get("spec") or {}
    errors = [required(f"spec.{name}") for name in ("attacher", "nodeName") if not spec.get(name)]
    source = spec.get("source") or {}
    if (source.get("inlineVolumeSpec") is None) == (not source.get("persistentVolumeName")):
        errors.append(required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName"))
    return errors


def _validate_attachment_update(attachment: Object, old: Object) -> Errors:
    return rules.immutable("spec", attachment.get("spec"), old.get("spec"))


# ---- the kinds -----------------------------------------------------------------------------------------------


def _storage(kind: str, plural: str, columns: tuple[Column, ...], **rest: Any) -> Kind:
    return Kind(
        group=GROUP,
        version="v1",
        kind=kind,
        plural=plural,
        schema=f"io.k8s.api.storage.v1.{kind}",
        singular=kind.lower(),
        columns=columns,
        **{"namespaced": False, "generation_fields": (), **rest},
    )


PERSISTENT_VOLUME: Final = Kind(
    group="",
    version="v1",
    kind="PersistentVolume",
    plural="persistentvolumes",
    schema="io.k8s.api.core.v1.PersistentVolume",
    namespaced=False,
    singular="persistentvolume",
    short_names=("pv",),
    subresources=("status",),
    columns=(
        at("Capacity", "spec.capacity.storage"),
        computed("Access Modes", _modes("spec.accessModes")),
        at("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"),
        computed("Status", _phase),
        computed("Claim", _claim_cell),
        at("StorageClass", "spec.storageClassName"),
        at("VolumeAttributesClass", "spec.volumeAttributesClassName", empty="<unset>"),
        at("Reason", "status.reason"),
        AGE,
        at("VolumeMode", "spec.volumeMode", priority=1),
    ),
    generation_fields=(),
    default=_default_volume,
    prepare_create=_pending,
    validate=_validate_volume,
    validate_update=_validate_volume_update,
)

PERSISTENT_VOLUME_CLAIM: Final = Kind(
    group="",
    version="v1",
    kind="PersistentVolumeClaim",
    plural="persistentvolumeclaims",
    schema="io.k8s.api.core.v1.PersistentVolumeClaim",
    singular="persistentvolumeclaim",
    short_names=("pvc",),
    subresources=("status",),
    columns=(
        computed("Status", _phase),
        at("Volume", "spec.volumeName"),
        at("Capacity", "status.capacity.storage"),
        computed("Access Modes", _modes("status.accessModes")),
        at("StorageClass", "spec.storageClassName"),
        at("VolumeAttributesClass", "spec.volumeAttributesClassName", empty="<unset>"),
        AGE,
        at("VolumeMode", "spec.volumeMode", priority=1),
    ),
    generation_fields=(),
    default=_default_claim,
    prepare_create=_pending,
    validate=_validate_claim,
    validate_update=_validate_claim_update,
)

KINDS: Final = (
    PERSISTENT_VOLUME,
    PERSISTENT_VOLUME_CLAIM,
    _storage(
        "CSIDriver",
        "csidrivers",
        (
            at("AttachRequired", "spec.attachRequired", "boolean"),
            at("PodInfoOnMount", "spec.podInfoOnMount", "boolean"),
            at("StorageCapacity", "spec.storageCapacity", "boolean"),
            computed("TokenRequests", _audiences),
            at("RequiresRepublish", "spec.requiresRepublish", "boolean"),
            computed("Modes", lambda obj: ",".join(dig(obj, "spec.volumeLifecycleModes", []))),
            AGE,
        ),
        generation_fields=("spec",),
        default=_default_driver,
        validate=_validate_driver,
        validate_update=_validate_driver_update,
    ),
    _storage("CSINode", "csinodes", (count("Drivers", "spec.drivers"), AGE), validate=_validate_node),
    _storage(
        "CSIStorageCapacity",
        "csistoragecapacities",
        (at("StorageClassName", "storageClassName"), at("Capacity", "capacity"), AGE),
        namespaced=True,
        validate=_validate_capacity,
        validate_update=_validate_capacity_update,
    ),
    _storage(
        "StorageClass",
        "storageclasses",
        (
            computed("Name", _class_name, format="name"),
            at("Provisioner", "provisioner"),
            at("ReclaimPolicy", "reclaimPolicy"),
            at("VolumeBindingMode", "volumeBindingMode"),
            at("AllowVolumeExpansion", "allowVolumeExpansion", "boolean", empty=False),
            AGE,
        ),
        short_names=("sc",),
        default=_default_class,
        validate=_validate_class,
        validate_update=_validate_class_update,
    ),
    _storage(
        "VolumeAttachment",
        "volumeattachments",
        (
            at("Attacher", "spec.attacher"),
            at("PV", "spec.source.persistentVolumeName"),
            at("Node", "spec.nodeName"),
            at("Attached", "status.attached", "boolean", empty=False),
            AGE,
        ),
        subresources=("status",),
        validate=_validate_attachment,
        validate_update=_validate_attachment_update,
    ),
    _storage(
        "VolumeAttributesClass",
        "volumeattributesclasses",
        (at("DriverName", "driverName"), AGE),
        short_names=("vac",),
        validate=_validate_attributes,
        validate_update=_unchanged("driverName", "parameters"),
    ),
)

"""Namespaces and service accounts."""

from typing import Final

from controller.kinds.columns import AGE, at, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, invalid

_KUBERNETES: Final = "kubernetes"
NAME_LABEL: Final = "kubernetes.io/metadata.name"


def _default_namespace(namespace: Object) -> None:
    metadata = namespace.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})[NAME_LABEL] = metadata["name"]


def _prepare_namespace(namespace: Object) -> None:
    spec = namespace.setdefault("spec", {})
    finalizers = spec.setdefault("finalizers", [])
    if _KUBERNETES not in finalizers:
        finalizers.append(_KUBERNETES)
    namespace["status"] = {"phase": "Active"}


def _prepare_namespace_update(namespace: Object, old: Object) -> None:
    # spec.finalizers is written through the finalize subresource only.
    finalizers = list(dig(old, "spec.finalizers", []))
    namespace["spec"] = {"finalizers": finalizers} if finalizers else {}


def _validate_namespace(namespace: Object) -> Errors:
    name = dig(namespace, "metadata.name", "")
    label = dig(namespace, "metadata.labels", {}).get(NAME_LABEL)
    if label not in (None, name):
        return [invalid(f"metadata.labels[{NAME_LABEL}]", label, f"must be {name}")]
    return []


NAMESPACE: Final = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    schema="io.k8s.api.core.v1.Namespace",
    namespaced=False,
    singular="namespace",
    short_names=("ns",),
    subresources=("status", "finalize"),
    columns=(at("Status", "status.phase"), AGE),
    generation_fields=(),
    selectable_fields={"status.phase": lambda obj: str(dig(obj, "status.phase", ""))},
    default=_default_namespace,
    prepare_create=_prepare_namespace,
    prepare_update=_prepare_namespace_update,
    validate=_validate_namespace,
)

SERVICE_ACCOUNT: Final = Kind(
    group="",
    version="v1",
    kind="ServiceAccount",
    plural="serviceaccounts",
    schema="io.k8s.api.core.v1.ServiceAccount",
    singular="serviceaccount",
    short_names=("sa",),
    subresources=("token",),
    columns=(AGE,),
    generation_fields=(),
)

KINDS: Final = (NAMESPACE, SERVICE_ACCOUNT)

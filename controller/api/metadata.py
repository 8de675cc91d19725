"""``metadata``: what the server fills in, what may change, and what is valid. Pure.

Spec: apimachinery ``api/validation/objectmeta.go``, apiserver ``registry/rest/{create,update}.go``.
"""

import re
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from common.selectors import is_label_value, is_qualified_name
from controller.kinds.kind import FieldError, Kind, Object

NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
SUFFIX_LENGTH = 5
GENERATED_BASE_MAX = 63 - SUFFIX_LENGTH
ANNOTATION_BYTES_MAX = 256 * 1024
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', "
    "regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic "
    "character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', "
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_QUALIFIED_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', "
    "regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
# Kinds whose names are stricter or laxer than a DNS subdomain.
_LABEL_NAMES = frozenset({"namespaces"})
_LABEL_1035_NAMES = frozenset({"services"})
_PATH_SEGMENT_GROUPS = frozenset({"rbac.authorization.k8s.io"})


def name_problem(kind: Kind, name: str) -> str:
    """Why ``name`` is no name for this kind; empty when it is one."""
    if kind.group in _PATH_SEGMENT_GROUPS or kind.plural in ("certificatesigningrequests", "users"):
        bad = next((part for part in ("/", "%") if part in name), "")
        return "may not contain '" + bad + "'" if bad else ("may not be '" + name + "'" if name in (".", "..") else "")
    if kind.plural == "ipaddresses" and kind.group == "networking.k8s.io":
        return _address_problem(name)
    if kind.plural in _LABEL_NAMES or kind.plural in _LABEL_1035_NAMES:
        if len(name) > 63:
            return "must be no more than 63 characters"
        if kind.plural in _LABEL_1035_NAMES:
            return "" if _LABEL_1035.fullmatch(name) else _LABEL_1035_TEXT
        return "" if _LABEL.fullmatch(name) else _LABEL_TEXT
    if len(name) > 253:
        return "must be no more than 253 characters"
    return "" if _SUBDOMAIN.fullmatch(name) else _SUBDOMAIN_TEXT


def _address_problem(name: str) -> str:
    try:
        canonical = str(ip_address(name))
    except ValueError:
        return "must be a valid IP address"
    return "" if name == canonical else f"must be in canonical form ({canonical})"


def validate(kind: Kind, obj: Object) -> list[FieldError]:
    """Judge a completed ``metadata``."""
    metadata = obj["metadata"]
    errors: list[FieldError] = []
    name = metadata.get("name", "")
    if not name:
        errors.append(FieldError("FieldValueRequired", "metadata.name", "name or generateName is required"))
    elif problem := name_problem(kind, name):
        errors.append(FieldError("FieldValueInvalid", "metadata.name", problem, name))
    if kind.namespaced:
        namespace = metadata.get("namespace", "")
        if not namespace:
            errors.append(FieldError("FieldValueRequired", "metadata.namespace", ""))
        elif not _LABEL.fullmatch(namespace) or len(namespace) > 63:
            errors.append(FieldError("FieldValueInvalid", "metadata.namespace", _LABEL_TEXT, namespace))
    errors += validate_labels(metadata.get("labels") or {}, "metadata.labels")
    errors += _validate_annotations(metadata.get("annotations") or {})
    errors += _validate_owners(metadata.get("ownerReferences") or [])
    for finalizer in metadata.get("finalizers") or []:
        if not is_qualified_name(finalizer):
            errors.append(FieldError("FieldValueInvalid", "metadata.finalizers", _QUALIFIED_TEXT, finalizer))
    return errors


def validate_labels(labels: dict[str, str], path: str) -> list[FieldError]:
    """Keys must be qualified names, values label values."""
    errors = []
    for key, value in labels.items():
        if not is_qualified_name(key):
            errors.append(FieldError("FieldValueInvalid", path, _QUALIFIED_TEXT, key))
        if len(value) > 63:
            errors.append(FieldError("FieldValueInvalid", path, "must be no more than 63 characters", value))
        elif not is_label_value(value):
            errors.append(FieldError("FieldValueInvalid", path, _VALUE_TEXT, value))
    return errors


def _validate_annotations(annotations: dict[str, str]) -> list[FieldError]:
    errors = [
        FieldError("FieldValueInvalid", "metadata.annotations", _QUALIFIED_TEXT, key)
        for key in annotations
        if not is_qualified_name(key.lower())
    ]
    if sum(len(key) + len(value) for key, value in annotations.items()) > ANNOTATION_BYTES_MAX:
        detail = f"may not be more than {ANNOTATION_BYTES_MAX} bytes"
        errors.append(FieldError("FieldValueTooLong", "metadata.annotations", detail))
    return errors


def _validate_owners(owners: list[Object]) -> list[FieldError]:
    errors = []
    controllers = [owner for owner in owners if owner.get("controller")]
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                detail = f"{'version' if field == 'apiVersion' else field} must not be empty"
                errors.append(FieldError("FieldValueInvalid", f"{path}.{field}", detail, owner.get(field, "")))
    if len(controllers) > 1:
        first, second = (item.get("name") for item in controllers[:2])
        detail = 'Only one reference can have Controller set to true. Found "true" in references for '
        detail += f"{first} and {second}"
        errors.append(FieldError("FieldValueInvalid", "metadata.ownerReferences", detail, "..."))
    return errors


_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


def prepare_create(kind: Kind, obj: Object, namespace: str, *, uid: str, now: str, suffix: Callable[[], str]) -> None:
    """Fill in what a new object gets from the server, in place."""
    metadata = obj.setdefault("metadata", {})
    for field in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion", "generation"):
        metadata.pop(field, None)
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"][:GENERATED_BASE_MAX] + suffix()
    if kind.namespaced:
        metadata["namespace"] = namespace
    else:
        metadata.pop("namespace", None)
    metadata["uid"] = uid
    metadata["creationTimestamp"] = now
    if kind.generation_fields:
        metadata["generation"] = 1


def prepare_update(kind: Kind, obj: Object, old: Object) -> list[FieldError]:
    """Carry over what only the server sets; report what a user tried to change and may not."""
    metadata, before = obj.setdefault("metadata", {}), old["metadata"]
    errors: list[FieldError] = []
    for field in _IMMUTABLE:
        given, had = metadata.get(field), before.get(field)
        if given is None or given == "":
            if had is not None:
                metadata[field] = had
        elif given != had and not (field == "deletionGracePeriodSeconds" and had is None):
            errors.append(FieldError("FieldValueInvalid", f"metadata.{field}", "field is immutable", given))
    metadata.pop("selfLink", None)
    if "generation" in before:
        metadata["generation"] = before["generation"]
    else:
        metadata.pop("generation", None)
    if before.get("deletionTimestamp") and set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()):
        detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
        added = sorted(set(metadata["finalizers"]) - set(before.get("finalizers") or ()))
        errors.append(FieldError("FieldValueForbidden", "metadata.finalizers", f"{detail}{added!r}", None))
    return errors


def bump_generation(kind: Kind, obj: Object, old: Object) -> None:
    """Raise ``metadata.generation`` when the wanted state differs."""
    fields: Iterable[str] = kind.generation_fields
    if "*" in fields:
        unwatched = {"metadata", "status"} if "status" in kind.subresources else {"metadata"}
        fields = {*obj, *old} - unwatched
    if any(obj.get(field) != old.get(field) for field in fields):
        obj["metadata"]["generation"] = int(old["metadata"].get("generation", 0)) + 1


def same(obj: Object, old: Object) -> bool:
    """Whether a write changes nothing: times in managedFields do not count."""
    return bool(_comparable(obj) == _comparable(old))


def _comparable(obj: Object) -> Any:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in ("managedFields", "resourceVersion")}
    managed = [
        {key: value for key, value in item.items() if key != "time"}
        for item in obj["metadata"].get("managedFields") or ()
    ]
    return [metadata, managed, {key: value for key, value in obj.items() if key != "metadata"}]

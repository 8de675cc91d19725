"""ConfigMaps and Secrets."""

import base64
import binascii
from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, at, count, dig
from controller.kinds.kind import FieldError, Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, required

SIZE_MAX: Final = 1024 * 1024
_OPAQUE: Final = "Opaque"
_NEEDED_KEYS: Final = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}


def _keys(path: str, found: dict[str, Any]) -> Errors:
    return [invalid(f"{path}[{key}]", key, text) for key in found for text in rules.config_key_problems(key)]


def _validate_configmap(obj: Object) -> Errors:
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    errors = _keys("data", data) + _keys("binaryData", binary)
    errors += [invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in data if key in binary]
    size = sum(len(value.encode()) for value in data.values()) + sum(len(value) * 3 // 4 for value in binary.values())
    if size > SIZE_MAX:
        errors.append(FieldError("FieldValueTooLong", "data", f"may not be more than {SIZE_MAX} bytes"))
    return errors


def _immutable(obj: Object, old: Object, fields: tuple[str, ...]) -> Errors:
    if not old.get("immutable"):
        return []
    detail = "field is immutable when `immutable` is set"
    errors = [] if obj.get("immutable") else [forbidden("immutable", detail)]
    return errors + [forbidden(key, detail) for key in fields if (obj.get(key) or {}) != (old.get(key) or {})]


def _validate_configmap_update(obj: Object, old: Object) -> Errors:
    return _immutable(obj, old, ("data", "binaryData"))


def _default_secret(secret: Object) -> None:
    secret["type"] = secret.get("type") or _OPAQUE
    # stringData is write-only: it lands in data, base64-encoded, as upstream's conversion does.
    texts = secret.pop("stringData", None) or {}
    for key, text in texts.items():
        secret.setdefault("data", {})[key] = base64.b64encode(str(text).encode()).decode()


def _validate_secret(secret: Object) -> Errors:
    data: dict[str, str] = secret.get("data") or {}
    errors = _keys("data", data)
    size = 0
    for key, value in data.items():
        try:
            size += len(base64.b64decode(value or "", validate=False))
        except (binascii.Error, ValueError):
            errors.append(invalid(f"data[{key}]", "", "must be base64-encoded"))
    if size > SIZE_MAX:
        errors.append(FieldError("FieldValueTooLong", "data", f"may not be more than {SIZE_MAX} bytes"))
    kind = secret.get("type", "")
    if kind == "kubernetes.io/service-account-token":
        name = dig(secret, "metadata.annotations", {}).get("kubernetes.io/service-account.name")
        if not name:
            errors.append(required("metadata.annotations[kubernetes.io/service-account.name]"))
    if kind == "kubernetes.io/basic-auth" and "username" not in data and "password" not in data:
        errors += [required("data[username]"), required("data[password]")]
    errors += [required(f"data[{key}]") for key in _NEEDED_KEYS.get(kind, ()) if key not in data]
    return errors


def _validate_secret_update(secret: Object, old: Object) -> Errors:
    return rules.immutable("type", secret.get("type"), old.get("type")) + _immutable(secret, old, ("data",))


CONFIG_MAP: Final = Kind(
    group="",
    version="v1",
    kind="ConfigMap",
    plural="configmaps",
    schema="io.k8s.api.core.v1.ConfigMap",
    singular="configmap",
    short_names=("cm",),
    columns=(count("Data", "data,binaryData"), AGE),
    generation_fields=(),
    validate=_validate_configmap,
    validate_update=_validate_configmap_update,
)

SECRET: Final = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    schema="io.k8s.api.core.v1.Secret",
    singular="secret",
    columns=(at("Type", "type"), count("Data", "data"), AGE),
    generation_fields=(),
    selectable_fields={"type": lambda obj: str(obj.get("type", ""))},
    default=_default_secret,
    validate=_validate_secret,
    validate_update=_validate_secret_update,
)

KINDS: Final = (CONFIG_MAP, SECRET)

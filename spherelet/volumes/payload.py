"""Files of ConfigMap, Secret, downward API and projected volumes. Pure: objects in, ``Files`` out."""

import binascii
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from common.errors import Retryable, Terminal
from spherelet.volumes import fields

Object = dict[str, Any]
DEFAULT_MODE: Final = 0o644


@dataclass(frozen=True, slots=True)
class File:
    """Content and permission bits; ``uid`` None keeps root."""

    data: bytes
    mode: int
    uid: int | None = None


Files = Mapping[str, File]
"""By path relative to the volume."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What fields of the pod resolve to on this host."""

    pod: Object
    host_ip: str
    pod_ips: tuple[str, ...]
    allocatable: Mapping[str, str]


def of_config_map(source: Object, body: Object | None, default_mode: int | None = None) -> dict[str, File]:
    """Files of a ``configMap`` source; ``body`` None: it does not exist. Raises ``Retryable`` in upstream's words."""
    name = str(source.get("name", ""))
    data: dict[str, bytes] = {}
    if body is None and not source.get("optional"):
        raise Retryable(f'configmap "{name}" not found')
    if body is not None:
        data = {key: str(value).encode() for key, value in (body.get("data") or {}).items()}
        data |= {key: _decoded(name, key, value) for key, value in (body.get("binaryData") or {}).items()}
    return _select(source, data, "configmap references non-existent config key: ", default_mode)


def of_secret(source: Object, body: Object | None, default_mode: int | None = None) -> dict[str, File]:
    """Files of a ``secret`` source, as ``of_config_map``."""
    name = str(source.get("secretName") or source.get("name") or "")
    data: dict[str, bytes] = {}
    if body is None and not source.get("optional"):
        raise Retryable(f'secret "{name}" not found')
    if body is not None:
        data = {key: _decoded(name, key, value) for key, value in (body.get("data") or {}).items()}
    return _select(source, data, "references non-existent secret key: ", default_mode)


def _decoded(name: str, key: str, value: str) -> bytes:
    try:
        return b64decode(value or "", validate=True)
    except (binascii.Error, ValueError) as err:
        raise Retryable(f'"{name}": key {key} is not base64') from err


def _select(source: Object, data: Mapping[str, bytes], missing: str, default_mode: int | None) -> dict[str, File]:
    mode = _default_mode(source, default_mode)
    items = source.get("items") or ()
    if not items:
        return {check_path(key): File(value, mode) for key, value in data.items()}
    files = {}
    for item in items:
        if item["key"] in data:
            each = item.get("mode")
            files[check_path(item["path"])] = File(data[item["key"]], mode if each is None else int(each))
        elif not source.get("optional"):
            raise Retryable(f"{missing}{item['key']}")
    return files


def _default_mode(source: Object, outer: int | None) -> int:
    """0 is a mode too."""
    given = source.get("defaultMode")
    return int(given) if given is not None else DEFAULT_MODE if outer is None else outer


def of_downward(source: Object, facts: PodFacts, default_mode: int | None = None) -> dict[str, File]:
    """Files of a ``downwardAPI`` source."""
    mode = _default_mode(source, default_mode)
    files = {}
    spec = facts.pod["spec"]
    containers = {c["name"]: c for c in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))}
    for item in source.get("items") or ():
        if "fieldRef" in item:
            path = str(item["fieldRef"].get("fieldPath"))
            text = fields.field(facts.pod, path, pod_ips=facts.pod_ips, host_ip=facts.host_ip)
        else:
            wanted = item.get("resourceFieldRef") or {}
            if wanted.get("containerName") not in containers:
                raise Terminal(f"container {wanted.get('containerName')} not found")
            text = fields.resource(containers[wanted["containerName"]], wanted, facts.allocatable)
        each = item.get("mode")
        files[check_path(item["path"])] = File(text.encode(), mode if each is None else int(each))
    return files


def of_token(
    source: Object, token: str, default_mode: int, *, uid: int | None, fs_group: int | None
) -> dict[str, File]:
    """The file of a ``serviceAccountToken`` source: readable by its user only, when the pod names one."""
    mode = default_mode if uid is None and fs_group is None else 0o600
    return {check_path(source["path"]): File(token.encode(), mode, uid)}


def fs_user(pod: Object) -> int | None:
    """The one user that all containers run as, or None: who may own tokens."""
    spec = pod["spec"]
    common = (spec.get("securityContext") or {}).get("runAsUser")
    users = {
        (c.get("securityContext") or {}).get("runAsUser", common)
        for c in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
    }
    only = users.pop() if len(users) == 1 else None
    return int(only) if only is not None else None


def fs_group(pod: Object) -> int | None:
    """``securityContext.fsGroup`` of the pod."""
    group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
    return int(group) if group is not None else None


def check_path(path: str) -> str:
    """``path`` if it stays inside its volume and clear of the writer's own names. Raises ``Terminal``."""
    parts = path.split("/")
    if not path or path.startswith("/") or ".." in parts or len(path) > 4096 or "\0" in path:
        raise Terminal(f"invalid path {path!r}: must be relative and must not contain '..'")
    if parts[0].startswith(".."):
        raise Terminal(f"invalid path {path!r}: must not start with '..'")
    return "/".join(part for part in parts if part not in ("", "."))

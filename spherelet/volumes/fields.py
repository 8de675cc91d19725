"""Fields of a pod by path: the downward API of environment variables and files. Pure."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from common.errors import Terminal
from common.quantity import Quantity

Object = dict[str, Any]
_SUBSCRIPT: Final = re.compile(r"^metadata\.(labels|annotations)\['(.*)'\]$")


def field(pod: Object, path: str, *, pod_ips: tuple[str, ...] = (), host_ip: str = "") -> str:
    """Value of ``fieldRef.fieldPath``. Raises ``Terminal`` for a path that is not offered."""
    meta, spec = pod["metadata"], pod["spec"]
    subscript = _SUBSCRIPT.match(path)
    if subscript:
        return str((meta.get(subscript[1]) or {}).get(subscript[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(meta.get(path.removeprefix("metadata."), ""))
        case "metadata.labels" | "metadata.annotations":
            return format_map(meta.get(path.removeprefix("metadata.")) or {})
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.hostIP" | "status.hostIPs":
            return host_ip
        case "status.podIP":
            return pod_ips[0] if pod_ips else ""
        case "status.podIPs":
            return ",".join(pod_ips)
    raise Terminal(f"unsupported fieldPath: {path}")


def format_map(values: Mapping[str, str]) -> str:
    """``key="value"`` lines, sorted, as upstream prints labels and annotations into a file."""
    return "\n".join(f"{key}={json.dumps(values[key], ensure_ascii=False)}" for key in sorted(values))


def resource(container: Object, wanted: Object, allocatable: Mapping[str, str]) -> str:
    """Value of a ``resourceFieldRef``: rounded up to the divisor; a missing limit means what the node has."""
    kind, _, name = str(wanted.get("resource", "")).partition(".")
    if kind not in ("limits", "requests") or not name:
        raise Terminal(f"unsupported container resource: {wanted.get('resource')}")
    resources = container.get("resources") or {}
    amount = (resources.get(kind) or {}).get(name)
    if amount is None and kind == "requests":
        amount = (resources.get("limits") or {}).get(name, "0")
    if amount is None:
        amount = allocatable.get(name, "0")
    divisor = Quantity.parse(wanted.get("divisor") or "1").nanos or Quantity.parse("1").nanos
    return str(-(-Quantity.parse(amount).nanos // divisor))

"""Who a container runs as: image ``User`` and security context, resolved in the image's own passwd and group. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import Terminal


@dataclass(frozen=True, slots=True)
class User:
    """Numeric identity of a process, and its home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(image_user: str, pod: Mapping[str, Any], container: Mapping[str, Any], passwd: str, group: str) -> User:
    """Identity from the pod's and container's ``securityContext``, else the image's ``User``
    (``name|uid[:group|gid]``).

    ``passwd`` and ``group`` are the texts of the image's files. Raises ``Terminal`` (CreateContainerConfigError or
    CreateContainerError text) for a name that the image does not know and for a root user under ``runAsNonRoot``.
    """
    name, _, group_name = image_user.partition(":")
    given = _first(container, pod, "runAsUser")
    entry = _passwd_entry(passwd, str(given) if given is not None else name or "0")
    if given is not None:
        uid = int(given)
    elif name == "" or name.isdigit():
        uid = int(name or 0)
    elif entry is None:
        raise Terminal(f"unable to find user {name}: no matching entries in passwd file of the image")
    else:
        uid = int(entry[2])
    gid = _primary_group(group_name if given is None else "", _first(container, pod, "runAsGroup"), entry, group)
    _refuse_root(uid, name, _first(container, pod, "runAsNonRoot"), given)
    login = entry[0] if entry else "" if given is not None else name
    extra = set() if pod.get("supplementalGroupsPolicy") == "Strict" else _member_of(group, login)
    extra |= {int(each) for each in pod.get("supplementalGroups") or ()}
    if pod.get("fsGroup") is not None:
        extra.add(int(pod["fsGroup"]))
    return User(uid, gid, tuple(sorted(extra | {gid})), entry[5] if entry and entry[5] else "/")


def _first(container: Mapping[str, Any], pod: Mapping[str, Any], key: str) -> Any:
    return container[key] if container.get(key) is not None else pod.get(key)


def _refuse_root(uid: int, name: str, non_root: Any, given: Any) -> None:
    if not non_root:
        return
    if given is None and name and not name.isdigit():
        raise Terminal(
            f"container has runAsNonRoot and image has non-numeric user ({name}), cannot verify user is non-root"
        )
    if uid == 0:
        what = (
            "container's runAsUser breaks non-root policy"
            if given is not None
            else ("container has runAsNonRoot and image will run as root")
        )
        raise Terminal(f"{what}; set runAsUser to another user than 0")


def _primary_group(name: str, given: Any, entry: list[str] | None, group: str) -> int:
    if given is not None:
        return int(given)
    if name.isdigit():
        return int(name)
    if name:
        for fields in _lines(group, 3):
            if fields[0] == name:
                return int(fields[2])
        raise Terminal(f"unable to find group {name}: no matching entries in group file of the image")
    return int(entry[3]) if entry else 0


def _passwd_entry(passwd: str, who: str) -> list[str] | None:
    index = 2 if who.isdigit() else 0
    return next((fields for fields in _lines(passwd, 6) if fields[index] == who), None)


def _member_of(group: str, login: str) -> set[int]:
    if not login:
        return set()
    return {int(f[2]) for f in _lines(group, 4) if login in f[3].split(",") and f[2].isdigit()}


def _lines(text: str, fields_min: int) -> list[list[str]]:
    split = (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [fields for fields in split if len(fields) >= fields_min]

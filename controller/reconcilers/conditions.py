"""Conditions of statuses: find, set, drop; transitions move ``lastTransitionTime`` only when they are one. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from common.clock import rfc3339

Condition = dict[str, Any]


def find(conditions: Sequence[Mapping[str, Any]] | None, kind: str) -> Mapping[str, Any] | None:
    """The condition of this type."""
    return next((each for each in conditions or () if each.get("type") == kind), None)


def is_true(conditions: Sequence[Mapping[str, Any]] | None, kind: str) -> bool:
    found = find(conditions, kind)
    return found is not None and found.get("status") == "True"


def with_condition(
    conditions: Sequence[Mapping[str, Any]] | None,
    kind: str,
    status: str,
    reason: str,
    message: str,
    now: float,
    *,
    update_time: bool = False,
) -> list[Condition]:
    """A new list with the condition set, in its old place. Unchanged content keeps all its times.

    ``update_time`` maintains ``lastUpdateTime``, which workloads in ``apps`` have.
    """
    listed = [dict(each) for each in conditions or ()]
    old = find(listed, kind)
    if old is not None and (old.get("status"), old.get("reason"), old.get("message")) == (status, reason, message):
        return listed
    stamp = rfc3339(now)
    since = old.get("lastTransitionTime", stamp) if old is not None and old.get("status") == status else stamp
    fresh: Condition = {"type": kind, "status": status, "lastTransitionTime": since}
    if update_time:
        fresh["lastUpdateTime"] = stamp
    fresh |= {"reason": reason, "message": message}
    if old is None:
        return [*listed, fresh]
    return [fresh if each.get("type") == kind else each for each in listed]


def without(conditions: Sequence[Mapping[str, Any]] | None, kind: str) -> list[Condition]:
    return [dict(each) for each in conditions or () if each.get("type") != kind]

"""ResourceQuota: nothing is created, or grows, beyond what a namespace may use.

What is used is counted from the cache, not read from a quota's status, so that it is exact; what was let through and
has not come back from the store yet is reserved, so that two writes at once never share what is left.

Spec: kube ``plugin/pkg/admission/resourcequota``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from common.clock import Clock
from common.quantity import ZERO, Quantity
from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import forbidden
from controller.kinds import usage
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.usage import Usage
from controller.store.cache import Cache, Change
from controller.store.entry import Entry

QUOTAS: Final = ResourceKey("", "resourcequotas")
RESERVED_S: Final = 30.0
"""A write whose outcome nobody learned is counted for as long."""
REMEMBERED_MAX: Final = 16_384
_GROWING: Final = frozenset(((usage.PODS, "resize"), (usage.SERVICES, ""), (usage.CLAIMS, "")))
"""(resource, subresource) of updates that may use more than before."""


@dataclass(frozen=True, slots=True)
class _Reservation:
    namespace: str
    resource: ResourceKey
    obj: Object
    until_s: float


class QuotaKeeper:
    """A judging admission step (``admit``)."""

    def __init__(self, cache: Cache, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._reserved: dict[str, _Reservation] = {}
        """By uid."""
        self._decoded: dict[str, tuple[int, Object]] = {}
        cache.subscribe(None, self._changed)

    def _changed(self, change: Change) -> None:
        if self._reserved:
            self._reserved.pop(change.entry.uid, None)

    def admit(self, request: AdmissionRequest, lookup: Lookup) -> None:
        """Raises ``ApiError`` 403 that names the quota, what is asked, used and allowed."""
        del lookup
        key = request.kind.key
        creates = request.operation == "CREATE" and not request.subresource
        grows = request.operation == "UPDATE" and (key, request.subresource) in _GROWING
        if not request.kind.namespaced or not (creates or grows):
            return
        namespace = request.obj["metadata"].get("namespace", "")
        quotas = [entry.decode() for entry in self._cache.list(QUOTAS, namespace)]
        judged = [quota for quota in quotas if self._judge(quota, request, namespace)]
        if judged and not request.dry_run:
            self._reserve(request, namespace)

    def _judge(self, quota: Object, request: AdmissionRequest, namespace: str) -> bool:
        """Whether the quota has a say. Raises ``ApiError`` 403 when it is exceeded."""
        key, obj, name = request.kind.key, request.obj, quota["metadata"]["name"]
        if not usage.covers(quota, key, obj):
            return False
        hard = usage.hard_of(quota)
        asked = _more(usage.usage_of(key, obj), usage.usage_of(key, request.old) if request.old else {})
        asked = {each: amount for each, amount in asked.items() if each in hard}
        if key == usage.PODS and (missing := usage.unsaid(quota, obj)):
            raise _refused(request, f"failed quota: {name}: must specify {missing}")
        if not asked:
            return False
        used = self._used(quota, namespace, hard, except_uid=obj["metadata"].get("uid", "") if request.old else "")
        if request.old:
            before = usage.usage_of(key, request.old)
            used = {each: amount + before.get(each, ZERO) for each, amount in used.items()}
        over = sorted(each for each, amount in asked.items() if used[each] + amount > hard[each])
        if over:
            texts = [_listed(values, over) for values in (asked, used, hard)]
            why = f"exceeded quota: {name}, requested: {texts[0]}, used: {texts[1]}, limited: {texts[2]}"
            raise _refused(request, why)
        return True

    def _used(self, quota: Object, namespace: str, hard: Usage, except_uid: str) -> Mapping[str, Quantity]:
        now = self._clock.monotonic()
        for uid in [uid for uid, item in self._reserved.items() if item.until_s < now]:
            del self._reserved[uid]
        stored = self._stored(namespace, hard, except_uid)
        reserved = [
            (item.resource, item.obj)
            for uid, item in self._reserved.items()
            if item.namespace == namespace and uid != except_uid and self._cache.by_uid(uid) is None
        ]
        return usage.used_of(quota, [*stored, *reserved])

    def _stored(self, namespace: str, hard: Usage, except_uid: str) -> Iterable[tuple[ResourceKey, Object]]:
        for resource in self._cache.resources():
            if not usage.is_limited(resource, hard):
                continue
            for entry in self._cache.list(resource, namespace):
                if entry.uid != except_uid:
                    yield resource, self._decode(entry)

    def _decode(self, entry: Entry) -> Object:
        """Decoded at most once per version while it is in use."""
        known = self._decoded.get(entry.uid)
        if known is not None and known[0] == entry.revision:
            return known[1]
        obj = entry.decode()
        if len(self._decoded) >= REMEMBERED_MAX:
            self._decoded.pop(next(iter(self._decoded)))
        self._decoded[entry.uid] = (entry.revision, obj)
        return obj

    def _reserve(self, request: AdmissionRequest, namespace: str) -> None:
        uid = request.obj["metadata"].get("uid", "")
        if request.old is not None or not uid:
            return
        until = self._clock.monotonic() + RESERVED_S
        self._reserved[uid] = _Reservation(namespace, request.kind.key, request.obj, until)
        request.undo.append(lambda: self._reserved.pop(uid, None))


def _more(new: Usage, old: Usage) -> dict[str, Quantity]:
    """What ``new`` uses beyond ``old``; nothing where it uses less."""
    return {name: amount - old.get(name, ZERO) for name, amount in new.items() if amount > old.get(name, ZERO)}


def _listed(values: Usage, names: list[str]) -> str:
    return ",".join(f"{name}={values[name]}" for name in names)


def _refused(request: AdmissionRequest, why: str) -> Exception:
    return forbidden(request.kind.key, request.obj["metadata"].get("name", ""), why)

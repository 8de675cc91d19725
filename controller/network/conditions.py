"""Keeps ``status.conditions[type=Realized]`` of NetworkPolicies and Services true, and never early.

An object is realized when every live host that must hold its scope has confirmed the revision of the last change that
matters to the network. It then stays so for that generation (hosts that join later must catch up before pods start
there), unless a host reports that it could not put it in force. Written only when status, reason or generation change.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from common.clock import Clock, rfc3339
from common.errors import Retryable
from common.logs import logger
from common.messages import Scope
from common.tasks import KeyQueue
from controller.api.status import ApiError, is_not_found
from controller.kinds.kind import Object, ResourceKey
from controller.network.planner import CLUSTER, Planner
from controller.network.realization import Realization
from controller.network.views import POLICIES
from controller.store.entry import Entry

TYPE: Final = "Realized"
PENDING_AFTER_S: Final = 0.5
"""How long a change may be under way before it is worth a write that says so."""
RECHECK_S: Final = 5.0
HOSTS_NAMED_MAX: Final = 5

Key = tuple[ResourceKey, str, str]
log = logger("network")


class Reader(Protocol):
    """The part of the cache that is read here."""

    def get(self, resource: ResourceKey, namespace: str, name: str) -> Entry | None: ...


class StatusWriter(Protocol):
    """The part of the API's local client that is used here."""

    async def update_status(self, resource: ResourceKey, obj: Object) -> Object: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """``status`` is ``True`` or ``False``; ``reason`` Realized, Pending, Failed or Unreachable."""

    status: str
    reason: str
    message: str


@dataclass(slots=True)
class _Intent:
    revision: int
    since: float


class Conditions:
    """One serial worker per object, woken by reports of the scopes that objects wait for."""

    def __init__(
        self, reader: Reader, client: StatusWriter, planner: Planner, realization: Realization, clock: Clock
    ) -> None:
        self._reader = reader
        self._client = client
        self._planner = planner
        self._realization = realization
        self._clock = clock
        self._queue: KeyQueue[Key] = KeyQueue(clock)
        self._intents: dict[Key, _Intent] = {}
        self._open: dict[Scope, set[Key]] = {}
        self._fresh: set[Key] = set()

    async def run(self) -> None:
        """Write conditions until cancelled."""
        await self._queue.run(self._work)

    def seen(self, resource: ResourceKey, obj: Object, revision: int, changed: bool) -> None:
        """The object is now this. ``changed``: in a way that matters to the network, as of ``revision``."""
        meta = obj["metadata"]
        key = (resource, meta["namespace"], meta["name"])
        if changed or key not in self._intents:
            self._intents[key] = _Intent(revision, self._clock.monotonic())
        elif _is_true_for(_realized(obj), meta.get("generation")):
            return
        self._open.setdefault(_scope(key), set()).add(key)
        self._fresh.add(key)

    def planned(self) -> None:
        """A pass has covered every change so far."""
        for key in self._fresh:
            self._queue.add(key)
        self._fresh.clear()

    def gone(self, resource: ResourceKey, namespace: str, name: str) -> None:
        key = (resource, namespace, name)
        self._intents.pop(key, None)
        self._open.get(_scope(key), set()).discard(key)

    def reported(self, scope: Scope, failing: bool) -> None:
        """Something became known about ``scope``. ``failing``: failures came or went, look at settled objects too."""
        for key in tuple(self._open.get(scope, ())):
            self._queue.add(key)
        if failing:
            for key in tuple(self._intents):
                if _scope(key) == scope:
                    self._queue.add(key)

    def judge(self, key: Key) -> Verdict:
        """The truth about one object now."""
        scope, intent = _scope(key), self._intents[key]
        holders = self._holders(scope)
        live = sorted(host for host in holders if self._planner.alive(host))
        if not self._realization.covered(intent.revision):
            return Verdict("False", "Pending", "the change is not published yet")
        if not holders:
            nobody = "there are no hosts" if scope == CLUSTER else "no host runs pods of this namespace"
            return Verdict("True", "Realized", f"{nobody}, so none has to know")
        if not live:
            return Verdict("False", "Unreachable", f"no live host to confirm: {_some(sorted(holders))}")
        failures = [
            f"{item}: {reason}"
            for (where, item), reason in self._planner.desired.refused.items()
            if where == scope and self._concerns(key, item)
        ]
        failures += [
            f"{host}: {failure.reason}"
            for host in live
            for failure in self._realization.failures(host, scope)
            if self._concerns(key, failure.key)
        ]
        if failures:
            return Verdict("False", "Failed", _some(failures))
        lags = self._realization.behind((scope,), intent.revision)
        if lags:
            return Verdict("False", "Pending", _some([str(lag) for lag in lags]))
        return Verdict("True", "Realized", f"in force on {len(live)} hosts since revision {intent.revision}")

    def _holders(self, scope: Scope) -> frozenset[str]:
        if scope == CLUSTER:
            return frozenset(self._planner.nodes)
        return self._planner.span.hosts(scope.path.removeprefix("ns/"))

    def _concerns(self, key: Key, item: str) -> bool:
        resource, namespace, name = key
        if resource == POLICIES:
            return item == f"policy/{name}" or item in self._planner.sets_of_policy(namespace, name)
        return item == f"service/{namespace}/{name}"

    async def _work(self, key: Key) -> float | None:
        intent = self._intents.get(key)
        entry = self._reader.get(*key)
        if intent is None or entry is None or entry.deleting:
            return None
        obj = entry.decode()
        verdict = self.judge(key)
        known = _realized(obj)
        generation = obj["metadata"].get("generation")
        current = known is not None and known.get("observedGeneration") == generation
        if verdict.status == "True":
            self._open.get(_scope(key), set()).discard(key)
        elif verdict.reason == "Pending":
            if current and known is not None and known.get("status") == "True":
                return RECHECK_S
            waited = self._clock.monotonic() - intent.since
            if waited < PENDING_AFTER_S:
                return max(PENDING_AFTER_S - waited, 0.01)
        if current and known is not None and (known["status"], known.get("reason")) == (verdict.status, verdict.reason):
            return None if verdict.status == "True" else RECHECK_S
        await self._write(key, obj, known, verdict)
        return None if verdict.status == "True" else RECHECK_S

    async def _write(self, key: Key, obj: Object, known: Object | None, verdict: Verdict) -> None:
        condition: Object = {
            "type": TYPE,
            "status": verdict.status,
            "reason": verdict.reason,
            "message": verdict.message,
            "lastTransitionTime": rfc3339(self._clock.now()),
        }
        if known is not None and known.get("status") == verdict.status:
            condition["lastTransitionTime"] = known.get("lastTransitionTime", condition["lastTransitionTime"])
        if "generation" in obj["metadata"]:
            condition["observedGeneration"] = obj["metadata"]["generation"]
        others = [each for each in _conditions(obj) if each.get("type") != TYPE]
        obj["status"] = {**(obj.get("status") or {}), "conditions": [*others, condition]}
        try:
            await self._client.update_status(key[0], obj)
        except ApiError as err:
            if is_not_found(err):
                return
            raise Retryable(f"cannot write {TYPE} of {key[0]} {key[1]}/{key[2]}: {err.reason}") from err


def _conditions(obj: Object) -> list[Object]:
    found: list[Object] = (obj.get("status") or {}).get("conditions") or []
    return found


def _realized(obj: Object) -> Object | None:
    return next((each for each in _conditions(obj) if each.get("type") == TYPE), None)


def _is_true_for(condition: Object | None, generation: int | None) -> bool:
    if condition is None:
        return False
    return bool(condition.get("status") == "True" and condition.get("observedGeneration") == generation)


def _scope(key: Key) -> Scope:
    return Scope.namespace(key[1]) if key[0] == POLICIES else CLUSTER


def _some(texts: list[str]) -> str:
    more = f" and {len(texts) - HOSTS_NAMED_MAX} more" if len(texts) > HOSTS_NAMED_MAX else ""
    return "; ".join(texts[:HOSTS_NAMED_MAX]) + more

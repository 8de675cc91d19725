"""Keeps ``status.conditions[type=Realized]`` of NetworkPolicies and Services true, and never early.

An object is realized when every host that must hold its scope has confirmed the revision of the last change that
matters to the network. Must hold: a policy, the hosts with pods of its namespace; a service, all nodes. A host whose
agent is away counts, since its pods and its data plane go on as it last knew; one that lost its lease does not.

A policy follows its span: a host that joins has ``PENDING_AFTER_S`` to catch up (its pods do not start before), then
the policy is Pending. Written when status, reason, generation or the number of hosts change; a message about hosts
that are behind at most every ``RECHECK_S``.
"""

from collections import defaultdict
from collections.abc import Collection
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
SINCE: Final = " since revision "

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
        self._intents: dict[Key, int] = {}
        self._policies: defaultdict[str, set[Key]] = defaultdict(set)
        self._open: dict[Scope, set[Key]] = {}
        self._fresh: set[Key] = set()
        self._behind_since: dict[Key, float] = {}
        self._written: dict[Key, float] = {}
        self._awaited: dict[Key, str] = {}
        """One of the hosts that each object waits for: as long as it is behind, reports of others change nothing."""

    async def run(self) -> None:
        """Write conditions until cancelled."""
        await self._queue.run(self._work)

    def seen(self, resource: ResourceKey, obj: Object, revision: int, changed: bool) -> None:
        """The object is now this. ``changed``: in a way that matters to the network, as of ``revision``."""
        meta = obj["metadata"]
        key = (resource, meta["namespace"], meta["name"])
        if changed or key not in self._intents:
            self._intents[key] = revision
            if resource == POLICIES:
                self._policies[meta["namespace"]].add(key)
        elif _is_true_for(_realized(obj), meta.get("generation")):
            return
        self._open.setdefault(_scope(key), set()).add(key)
        self._fresh.add(key)

    def planned(self, moved: Collection[str]) -> None:
        """A pass has covered every change so far; namespaces in ``moved`` are held by other hosts than before."""
        for namespace in moved:
            self._fresh.update(self._policies.get(namespace, ()))
        for key in self._fresh:
            self._queue.add(key)
        self._fresh.clear()

    def gone(self, resource: ResourceKey, namespace: str, name: str) -> None:
        key = (resource, namespace, name)
        for known in (self._intents, self._behind_since, self._written, self._awaited):
            known.pop(key, None)
        self._fresh.discard(key)
        self._policies[namespace].discard(key)
        if not self._policies[namespace]:
            del self._policies[namespace]
        self._open.get(_scope(key), set()).discard(key)

    def reported(self, scope: Scope, failing: bool, host: str = "") -> None:
        """Something became known about ``scope``, on ``host`` alone where it is given.

        ``failing``: failures came or went, look at settled objects too.
        """
        for key in tuple(self._open.get(scope, ())):
            awaited = self._awaited.get(key, "")
            if not host or awaited in ("", host) or not self._planner.alive(awaited):
                self._queue.add(key)
        if failing:
            for key in tuple(self._intents):
                if _scope(key) == scope:
                    self._queue.add(key)

    def judge(self, key: Key) -> Verdict:
        """The truth about one object now."""
        self._awaited.pop(key, None)
        scope, revision = _scope(key), self._intents[key]
        if not self._realization.covered(revision):
            return Verdict("False", "Pending", "the change is not published yet")
        holders = sorted(self._holders(scope))
        if not holders:
            nobody = "there are no hosts" if scope == CLUSTER else "no host runs pods of this namespace"
            return Verdict("True", "Realized", f"{nobody}, so none has to know")
        failures = self._failures(key, scope, holders)
        if failures:
            return Verdict("False", "Failed", _some(failures))
        behind = {host: self._realization.lag(host, scope, revision) for host in holders}
        lags = {host: str(lag) for host, lag in behind.items() if lag is not None}
        away = [host for host in lags if not self._planner.alive(host)]
        if lags:
            self._awaited[key] = next((host for host in lags if host not in away), "")
            said = _some([f"{lag} (its agent is not connected)" if host in away else lag for host, lag in lags.items()])
            return Verdict("False", "Unreachable" if len(away) == len(lags) else "Pending", said)
        count = "1 host" if len(holders) == 1 else f"{len(holders)} hosts"
        lost = sorted(self._known_holders(scope).difference(holders))
        without = f", without {_some(lost)}: lost" if lost else ""
        return Verdict("True", "Realized", f"in force on {count}{without}{SINCE}{revision}")

    def _failures(self, key: Key, scope: Scope, holders: list[str]) -> list[str]:
        failures = [
            f"{item}: {reason}"
            for (where, item), reason in self._planner.desired.refused.items()
            if where == scope and self._concerns(key, item)
        ]
        return failures + [
            f"{host}: {failure.reason}"
            for host in holders
            for failure in self._realization.failures(host, scope)
            if self._concerns(key, failure.key)
        ]

    def _holders(self, scope: Scope) -> frozenset[str]:
        nodes = self._planner.nodes
        return frozenset(host for host in self._known_holders(scope) if host in nodes and not nodes[host].lost)

    def _known_holders(self, scope: Scope) -> frozenset[str]:
        if scope == CLUSTER:
            return frozenset(self._planner.nodes)
        return self._planner.span.hosts(scope.path.removeprefix("ns/"))

    def _concerns(self, key: Key, item: str) -> bool:
        resource, namespace, name = key
        if resource == POLICIES:
            return item == f"policy/{name}" or item in self._planner.sets_of_policy(namespace, name)
        return item == f"service/{namespace}/{name}"

    async def _work(self, key: Key) -> float | None:
        entry = self._reader.get(*key)
        if key not in self._intents or entry is None or entry.deleting:
            return None
        obj = entry.decode()
        verdict = self.judge(key)
        known = _realized(obj)
        generation = obj["metadata"].get("generation")
        current = known is not None and known.get("observedGeneration") == generation
        now = self._clock.monotonic()
        if verdict.status == "True":
            self._open.get(_scope(key), set()).discard(key)
            self._behind_since.pop(key, None)
        else:
            self._open.setdefault(_scope(key), set()).add(key)
            left_s = self._behind_since.setdefault(key, now) + PENDING_AFTER_S - now
            if verdict.reason != "Failed" and left_s > 0:
                return max(left_s, 0.01)
        again_s = None if verdict.status == "True" else RECHECK_S
        if current and known is not None and self._says(key, known, verdict, now):
            return again_s
        await self._write(key, obj, known, verdict)
        self._written[key] = now
        return again_s

    def _says(self, key: Key, known: Object, verdict: Verdict, now: float) -> bool:
        """Whether the condition as written is good enough."""
        if (known["status"], known.get("reason")) != (verdict.status, verdict.reason):
            return False
        if verdict.status == "True":
            return bool(known.get("message", "").partition(SINCE)[0] == verdict.message.partition(SINCE)[0])
        return known.get("message") == verdict.message or now - self._written.get(key, -1e9) < RECHECK_S

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

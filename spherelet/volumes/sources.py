"""ConfigMaps, Secrets, Services and tokens that pods of this host use, kept current by watches.

One watch per referenced object, so that this host never reads what no pod here refers to. Objects marked
``immutable`` are read once. A watch outlives its last user for a while, because pods are often replaced by alike ones.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from common.clock import Clock, parse_rfc3339
from common.errors import Retryable
from common.tasks import Wake
from spherelet.volumes.references import Ref

Object = dict[str, Any]
FIRST_ANSWER_S: Final = 10.0
LINGER_S: Final = 60.0
TOKEN_REFRESH: Final = 0.8
"""A token is renewed when this part of its life has passed."""


class Api(Protocol):
    """What is needed of ``common.kube.KubeClient``."""

    async def create(self, path: str, body: Object) -> Object: ...

    async def follow(
        self,
        path: str,
        params: Mapping[str, str],
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[str, Object], None],
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Token:
    """A bound service account token. ``renew_at`` is seconds since the epoch."""

    text: str
    renew_at: float


@dataclass(slots=True)
class _Entry:
    known: bool = False
    body: Object | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    users: set[str] = field(default_factory=set)
    idle_since: float = 0.0
    task: asyncio.Task[None] | None = None


class Sources:
    """The cache. ``run`` must be running for anything to arrive."""

    def __init__(self, api: Api, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._entries: dict[Ref, _Entry] = {}
        self._services: dict[tuple[str, str], Object] | None = None
        self._services_known = asyncio.Event()
        self._tokens: dict[tuple[str, ...], Token] = {}
        self._wake = Wake()
        self.listeners: list[Callable[[str], None]] = []
        """Called with the uid of each pod that uses an object that changed. Must only mark dirty."""

    async def run(self) -> None:
        """Keep the watches until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_services())
            while True:
                now = self._clock.monotonic()
                for ref, entry in list(self._entries.items()):
                    if entry.users and entry.task is None:
                        entry.task = group.create_task(self._follow(ref, entry))
                    elif not entry.users and now - entry.idle_since > LINGER_S:
                        if entry.task is not None:
                            entry.task.cancel()
                        del self._entries[ref]
                idle = any(not entry.users for entry in self._entries.values())
                await self._wake.wait(LINGER_S / 2 if idle else None)

    def retain(self, pod_uid: str, refs: frozenset[Ref]) -> None:
        """Pod ``pod_uid`` uses exactly ``refs`` from now on; none ends it."""
        for ref in refs:
            self._entries.setdefault(ref, _Entry()).users.add(pod_uid)
        for ref, entry in self._entries.items():
            if ref not in refs and pod_uid in entry.users:
                entry.users.discard(pod_uid)
                entry.idle_since = self._clock.monotonic()
        if not refs:
            for key in [key for key in self._tokens if key[0] == pod_uid]:
                del self._tokens[key]
        self._wake.set()

    async def get(self, ref: Ref) -> Object | None:
        """The object now, None if it does not exist. It must be retained. Raises ``Retryable`` if nobody answers."""
        entry = self._entries[ref]
        if not entry.known:
            try:
                async with asyncio.timeout(FIRST_ANSWER_S):
                    await entry.changed.wait()
            except TimeoutError as err:
                raise Retryable(f"failed to sync {ref.plural[:-1]} cache: timed out waiting for the API") from err
        return entry.body

    async def services(self) -> Mapping[tuple[str, str], Object]:
        """Services with a cluster address by (namespace, name). Raises ``Retryable`` if nobody answers."""
        try:
            async with asyncio.timeout(FIRST_ANSWER_S):
                await self._services_known.wait()
        except TimeoutError as err:
            raise Retryable("services have not yet been read at least once, cannot construct envvars") from err
        return self._services or {}

    async def token(self, pod: Object, audience: str, expiration_s: int) -> Token:
        """A token of the pod's service account, bound to the pod. Raises ``Retryable``."""
        meta, spec = pod["metadata"], pod["spec"]
        account = str(spec.get("serviceAccountName") or "default")
        key = (str(meta["uid"]), account, audience, str(expiration_s))
        held = self._tokens.get(key)
        if held is not None and self._clock.now() < held.renew_at:
            return held
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": expiration_s,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            },
        }
        asked_at = self._clock.now()
        try:
            answer = await self._api.create(
                f"/api/v1/namespaces/{meta['namespace']}/serviceaccounts/{account}/token", body
            )
            status = answer["status"]
            ends = parse_rfc3339(status["expirationTimestamp"])
        except Retryable as err:
            if held is not None:
                return Token(held.text, self._clock.now() + 10)  # still valid for the last fifth of its life
            raise Retryable(f"failed to fetch token: {err}") from err
        token = Token(str(status["token"]), asked_at + max(60.0, (ends - asked_at) * TOKEN_REFRESH))
        self._tokens[key] = token
        return token

    async def _follow(self, ref: Ref, entry: _Entry) -> None:
        def put(body: Object | None) -> None:
            fresh = entry.body != body
            entry.body, entry.known = body, True
            first = not entry.changed.is_set()
            entry.changed.set()
            if fresh and not first:
                for uid in sorted(entry.users):
                    for listener in self.listeners:
                        listener(uid)

        def on_list(items: list[Object]) -> None:
            put(next((each for each in items if each["metadata"]["name"] == ref.name), None))

        def on_event(kind: str, body: Object) -> None:
            if body["metadata"]["name"] == ref.name:
                put(None if kind == "DELETED" else body)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(
                self._api.follow(ref.path, {"fieldSelector": f"metadata.name={ref.name}"}, on_list, on_event)
            )
            await entry.changed.wait()
            if (entry.body or {}).get("immutable"):
                watching.cancel()

    async def _follow_services(self) -> None:
        def on_list(items: list[Object]) -> None:
            self._services = {}
            for each in items:
                on_event("ADDED", each)
            self._services_known.set()

        def on_event(kind: str, body: Object) -> None:
            assert self._services is not None
            key = (body["metadata"]["namespace"], body["metadata"]["name"])
            self._services.pop(key, None)
            address = body.get("spec", {}).get("clusterIP")
            if kind != "DELETED" and address and address != "None":
                ports = [
                    {k: p[k] for k in ("name", "port", "protocol") if k in p} for p in body["spec"].get("ports") or ()
                ]
                self._services[key] = {"address": address, "ports": ports}

        with contextlib.suppress(asyncio.CancelledError):
            await self._api.follow("/api/v1/services", {}, on_list, on_event)

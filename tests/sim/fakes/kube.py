"""What ``common.kube.KubeClient`` is to spherelet, on the API of whichever controller runs now."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from common.clock import Clock
from common.errors import Retryable
from common.kube import KubeError, KubeUnavailable
from controller.api.status import ApiError
from controller.kinds.kind import ResourceKey
from controller.runtime.resources import EVENTS, PODS
from controller.store.cache import Cache, Expired
from controller.store.eventlog import Change
from tests.sim.controller import ControllerProcess

Object = dict[str, Any]
RETRY_S = 0.5
POLL_S = 30.0
REQUEST_S = 15.0


class FakeKube:
    """One host's connection. ``cut`` partitions it from the API; delays are upper ends of uniform ranges."""

    def __init__(
        self, user: str, controller: Callable[[], ControllerProcess | None], clock: Clock, rng: random.Random
    ) -> None:
        self._user = user
        self._controller = controller
        self._clock = clock
        self._rng = rng
        self.cut = False
        self.delay_s = 0.0
        self.lost_answer = 0.0

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        raise KubeError(404, "NotFound", path)

    async def create(self, path: str, body: Object) -> Object:
        return await self._call(lambda client: client.create(EVENTS, body))

    async def patch(self, path: str, body: object, content_type: str = "application/merge-patch+json") -> Object:
        resource, namespace, name, subresource = _parse(path)
        patch: Any = body
        return await self._call(
            lambda client: client.patch(resource, namespace, name, patch, content_type, subresource)
        )

    async def delete(self, path: str, body: Object | None = None) -> Object:
        resource, namespace, name, _ = _parse(path)
        options = body or {}
        uid, grace_s = (options.get("preconditions") or {}).get("uid"), options.get("gracePeriodSeconds")
        return await self._call(lambda client: client.delete(resource, namespace, name, uid=uid, grace_s=grace_s))

    async def call(self, work: Callable[[Any], Any]) -> Any:
        """Anything else, as this host. Raises ``KubeError``, ``KubeUnavailable``."""
        return await self._call(work)

    async def _call(self, work: Callable[[Any], Any]) -> Any:
        await self._clock.sleep(self._rng.uniform(0, self.delay_s))
        process = self._reach()
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await work(process.client(self._user))
        except TimeoutError as err:
            raise KubeUnavailable("no answer") from err
        except Retryable as err:
            raise KubeError(500, "InternalError", str(err)) from err
        except ApiError as err:
            raise KubeError(err.code, err.reason, str(err)) from err
        await self._clock.sleep(self._rng.uniform(0, self.delay_s))
        if self._reach() is not process or self._rng.random() < self.lost_answer:
            raise KubeUnavailable("connection reset")
        return answer

    def _reach(self) -> ControllerProcess:
        process = self._controller()
        if self.cut or process is None or not process.serving:
            raise KubeUnavailable("connection refused")
        return process

    async def follow(
        self,
        path: str,
        params: Mapping[str, str],
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[str, Object], None],
    ) -> None:
        """Pods by ``spec.nodeName``; one watch after the other, each at its own pace."""
        assert path == "/api/v1/pods"
        host = params["fieldSelector"].removeprefix("spec.nodeName=")
        while True:
            try:
                await self._watch(host, on_list, on_event)
            except KubeUnavailable:
                await self._clock.sleep(RETRY_S)
            except Expired:
                await self._clock.sleep(self._rng.uniform(0, RETRY_S))

    async def _watch(
        self, host: str, on_list: Callable[[list[Object]], None], on_event: Callable[[str, Object], None]
    ) -> None:
        process = self._reach()
        cache: Cache | None = process.cache
        assert cache is not None
        log = cache.table(PODS).log
        cursor = log.cursor_after(cache.revision)
        on_list([entry.decode() for entry in cache.list(PODS) if entry.fields.get("spec.nodeName") == host])
        while self._reach() is process:
            events = log.since(cursor)
            cursor += len(events)
            for event in events:
                told = _told(event.change, host)
                if told is not None:
                    on_event(*told)
            if not events:
                await log.wait(POLL_S)
                await self._clock.sleep(self._rng.uniform(0, self.delay_s))


def _told(change: Change, host: str) -> tuple[str, Object] | None:
    here = change.type != "DELETED" and change.entry.fields.get("spec.nodeName") == host
    was = change.old is not None and change.old.fields.get("spec.nodeName") == host
    if not here and not was:
        return None
    kind = "DELETED" if not here else "MODIFIED" if was else "ADDED"
    return kind, orjson.loads(change.entry.body)


def _parse(path: str) -> tuple[ResourceKey, str, str, str]:
    """Of ``/api/v1/namespaces/<ns>/<plural>/<name>[/<subresource>]``."""
    parts = path.split("/")
    return ResourceKey("", parts[5]), parts[4], parts[6], parts[7] if len(parts) > 7 else ""

"""An API of objects in memory for what spherelet's sources need of it."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from common.clock import rfc3339
from common.kube import KubeError

Object = dict[str, Any]


class FakeApi:
    """Objects by (plural, namespace, name); ``put`` is told to every watch."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.tokens = 0
        self.token_life_s = 3600.0
        self.watches: list[str] = []
        self._listeners: list[tuple[str, str, Callable[[str, Object], None]]] = []

    def put(self, plural: str, namespace: str, name: str, **body: Any) -> None:
        """Create or replace."""
        made = {"metadata": {"namespace": namespace, "name": name}, **body}
        self.objects[plural, namespace, name] = made
        for path, selected, listener in self._listeners:
            if path.endswith(f"/{plural}") and selected in ("", name) and namespace in path:
                listener("MODIFIED", made)

    async def create(self, path: str, body: Object) -> Object:
        assert path.endswith("/token")
        self.tokens += 1
        ends = rfc3339(time.time() + self.token_life_s)
        return {"status": {"token": f"token-{self.tokens}", "expirationTimestamp": ends}}

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Object:
        *_, plural, name = path.split("/")
        namespace = path.split("/namespaces/")[1].split("/")[0] if "/namespaces/" in path else ""
        found = self.objects.get((plural, namespace, name))
        if found is None:
            raise KubeError(404, "NotFound", f'{plural} "{name}" not found')
        return found

    async def follow(
        self,
        path: str,
        params: Mapping[str, str],
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[str, Object], None],
    ) -> None:
        selected = params.get("fieldSelector", "").removeprefix("metadata.name=")
        self.watches.append(f"{path}/{selected}")
        on_list(
            [
                body
                for (plural, namespace, name), body in self.objects.items()
                if path.endswith(f"/{plural}")
                and selected in ("", name)
                and (f"/namespaces/{namespace}/" in path or "/namespaces/" not in path)
            ]
        )
        listener = (path, selected, on_event)
        self._listeners.append(listener)
        try:
            await asyncio.Event().wait()
        finally:
            self._listeners.remove(listener)
            self.watches.remove(f"{path}/{selected}")

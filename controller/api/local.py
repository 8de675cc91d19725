"""What reconcilers write with: the same pipeline as HTTP, without sockets and without RBAC."""

import orjson

from controller.api.access import MASTERS, User
from controller.api.api import Api
from controller.api.deletion import DeleteOptions
from controller.api.patch import JSON, MERGE, STRATEGIC
from controller.api.status import ApiError, is_already_exists, is_conflict, is_not_found, not_found
from controller.api.writes import WriteOptions
from controller.kinds.kind import Kind, Object, ResourceKey

__all__ = ["JSON", "MERGE", "STRATEGIC", "ApiError", "LocalClient", "is_already_exists", "is_conflict", "is_not_found"]


class LocalClient:
    """Acts as ``user``; the last part of that name also owns the fields it writes."""

    def __init__(self, api: Api, user: str) -> None:
        self._api = api
        self._options = WriteOptions(user=User(user, groups=(MASTERS,)), manager=user.rpartition(":")[2])

    def _kind(self, resource: ResourceKey) -> Kind:
        return self._api.ports.kinds.by_key(resource)

    async def get(self, resource: ResourceKey, namespace: str, name: str) -> Object:
        """The newest acknowledged state. Raises ``ApiError`` 404."""
        await self._api.ports.fresh()
        entry = self._api.ports.cache.get(resource, namespace, name)
        if entry is None:
            raise not_found(resource, name)
        return entry.decode()

    async def create(self, resource: ResourceKey, obj: Object) -> Object:
        """Create ``obj`` (copied) in its ``metadata.namespace``. Raises ``ApiError``."""
        kind, obj = self._kind(resource), _copy(obj)
        self._api.writer.decode(kind, obj, (), "Strict")
        made = await self._api.writer.create(kind, obj["metadata"].get("namespace", ""), obj, self._options)
        return _decode(made)

    async def update(self, resource: ResourceKey, obj: Object) -> Object:
        """Replace all but the status; ``metadata.resourceVersion`` is a precondition when present."""
        return await self._update(resource, obj, "")

    async def update_status(self, resource: ResourceKey, obj: Object) -> Object:
        """Replace the status; ``metadata.resourceVersion`` is a precondition when present."""
        return await self._update(resource, obj, "status")

    async def _update(self, resource: ResourceKey, obj: Object, subresource: str) -> Object:
        kind, given = self._kind(resource), _copy(obj)
        self._api.writer.decode(kind, given, (), "Strict")
        metadata = given["metadata"]
        text = orjson.dumps(given)
        made = await self._api.writer.update(
            kind,
            metadata.get("namespace", ""),
            metadata["name"],
            lambda _: _decode(text),
            self._options,
            subresource,
        )
        return _decode(made)

    async def patch(
        self,
        resource: ResourceKey,
        namespace: str,
        name: str,
        patch: Object | list[Object],
        content_type: str = MERGE,
        subresource: str = "",
    ) -> Object:
        """JSON, merge or strategic merge patch. Raises ``ApiError``."""
        made = await self._api.patcher.change(
            self._kind(resource), namespace, name, orjson.dumps(patch), content_type, self._options, subresource, []
        )
        return _decode(made)

    async def delete(
        self,
        resource: ResourceKey,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_s: int | None = None,
        propagation: str | None = None,
    ) -> None:
        """Ask for deletion; finalizers and grace periods hold it as they hold any client's."""
        options = DeleteOptions(grace_s, uid, resource_version, propagation)
        await self._api.deleter.delete(self._kind(resource), namespace, name, options, self._options.user)


def _copy(obj: Object) -> Object:
    return _decode(orjson.dumps(obj))


def _decode(body: bytes) -> Object:
    obj: Object = orjson.loads(body)
    return obj

"""The part of ``controller.api.local.LocalClient`` that controllers write with."""

from typing import Any, Protocol

from controller.kinds.kind import Object, ResourceKey


class Client(Protocol):
    """Same pipeline as HTTP (defaults, validation, admission). Every method raises ``ApiError``."""

    async def create(self, resource: ResourceKey, obj: Object) -> Object: ...

    async def update(self, resource: ResourceKey, obj: Object) -> Object: ...

    async def update_status(self, resource: ResourceKey, obj: Object) -> Object: ...

    async def patch(
        self,
        resource: ResourceKey,
        namespace: str,
        name: str,
        patch: dict[str, Any] | list[Any],
        content_type: str,
        subresource: str = "",
    ) -> Object: ...

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
    ) -> None: ...

"""What request handlers are given."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from common.clock import Clock
from controller.api.status import ApiError, too_large_version, unavailable
from controller.kinds.kind import Kind, ResourceKey
from controller.kinds.schemas import Defined, Schemas, Structure
from controller.store.cache import Cache
from controller.store.objects import Store

FRESH_TIMEOUT_S = 3.0


class Kinds(Protocol):
    """The registry of served kinds."""

    def by_key(self, key: ResourceKey) -> Kind: ...

    def all(self) -> Iterable[Kind]: ...

    def lookup(self, group: str, version: str, plural: str) -> Kind | None: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside of a handler."""

    kinds: Kinds
    schemas: Schemas
    store: Store
    cache: Cache
    clock: Clock

    def structure(self, kind: Kind) -> Structure:
        """How objects of ``kind`` are decoded, patched and owned."""
        return kind.structure or Defined(self.schemas, kind.schema)

    async def fresh(self) -> None:
        """Until the cache has every write that this server acknowledged. Raises ``ApiError`` 503 when it cannot."""
        await self.at_least(
            self.store.acknowledged, unavailable("etcd is away: this server cannot read its own writes")
        )

    async def at_least(self, revision: int, otherwise: ApiError | None = None) -> None:
        """Until the cache has reached ``revision``. Raises ``otherwise``, by default 504, after three seconds."""
        if self.cache.revision >= revision:
            return
        try:
            async with asyncio.timeout(FRESH_TIMEOUT_S):
                await self.cache.wait_revision(revision)
        except TimeoutError:
            raise otherwise or too_large_version(revision, self.cache.revision) from None

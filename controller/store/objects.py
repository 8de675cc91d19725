"""Writes: compare-and-swap transactions over object keys."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.clock import Clock
from common.errors import SphereError
from controller.store.entry import key_for
from controller.store.etcd import Kv
from controller.store.proto import etcd_pb2 as pb

__all__ = ["Compare", "Conflict", "Delete", "Put", "Store", "key_for"]


@dataclass(frozen=True, slots=True)
class Compare:
    """The key's mod revision must be ``revision``; 0 means that the key must not exist."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Store ``body``, made by ``entry.encode``."""

    key: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the key."""

    key: str


class Conflict(SphereError):
    """A compare failed, nothing was written. ``key`` is the first that failed, ``revision`` what it has (0: absent)."""

    def __init__(self, key: str, revision: int) -> None:
        super().__init__(f"{key} is at revision {revision}")
        self.key = key
        self.revision = revision


class Store:
    """Transactions, and the highest revision that this process was told about."""

    def __init__(self, etcd: Kv, clock: Clock, observe_s: Callable[[float], None]) -> None:
        """``observe_s`` receives the duration of every transaction."""
        self._etcd = etcd
        self._clock = clock
        self._observe_s = observe_s
        self.acknowledged = 0
        """Reads that must see every acknowledged write wait until the cache has this revision."""

    async def txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> int:
        """Write all or nothing; returns the new revision. Raises ``Conflict``, or ``Unavailable`` (outcome unknown)."""
        request = pb.TxnRequest(
            compare=[_compare(item) for item in compares],
            success=[_operation(item) for item in writes],
            failure=[pb.RequestOp(request_range=pb.RangeRequest(key=c.key.encode(), keys_only=True)) for c in compares],
        )
        started = self._clock.monotonic()
        response = await self._etcd.txn(request)
        self._observe_s(self._clock.monotonic() - started)
        if not response.succeeded:
            conflict = _conflict(compares, response)
            # The cache must catch up with what made us fail before anybody tries again.
            self.acknowledged = max(self.acknowledged, conflict.revision or response.header.revision)
            raise conflict
        self.acknowledged = max(self.acknowledged, response.header.revision)
        return response.header.revision


def _compare(item: Compare) -> pb.Compare:
    return pb.Compare(result=pb.Compare.EQUAL, target=pb.Compare.MOD, key=item.key.encode(), mod_revision=item.revision)


def _operation(item: Put | Delete) -> pb.RequestOp:
    if isinstance(item, Put):
        return pb.RequestOp(request_put=pb.PutRequest(key=item.key.encode(), value=item.body))
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=item.key.encode()))


def _conflict(compares: Sequence[Compare], response: pb.TxnResponse) -> Conflict:
    for item, found in zip(compares, response.responses, strict=True):
        kvs = found.response_range.kvs
        revision = kvs[0].mod_revision if kvs else 0
        if revision != item.revision:
            return Conflict(item.key, revision)
    raise AssertionError("etcd refused a transaction whose compares all hold")

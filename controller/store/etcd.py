"""A small client of etcd's v3 API over gRPC: range, transaction, watch, compaction, status.

Field numbers and service paths are etcd's contract (https://etcd.io/docs/v3.4/learning/api/). Failures that
clear up by themselves become ``Unavailable``; a start revision that etcd has thrown away becomes ``Compacted``.
Several endpoints: the next one is tried after the current one failed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from common.errors import Retryable
from common.logs import logger
from common.settings import TlsFiles
from controller.store.proto import etcd_pb2 as pb

log = logger("etcd")

REQUEST_TIMEOUT_S = 10.0
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A half-open connection to a dead member is noticed within 15 s even when nothing is written.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Unavailable(Retryable):
    """etcd cannot be reached or has no leader. A write may or may not have happened."""


class Compacted(Retryable):
    """The asked-for revision is older than ``revision``, the oldest that etcd still has."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"etcd has compacted its history up to revision {revision}")
        self.revision = revision


class Kv(Protocol):
    """What store and cache need of etcd; ``Etcd`` is the real one."""

    async def range(
        self, key: bytes, range_end: bytes = b"", *, limit: int = 0, revision: int = 0, serializable: bool = False
    ) -> pb.RangeResponse: ...

    async def txn(self, request: pb.TxnRequest) -> pb.TxnResponse: ...

    async def compact(self, revision: int) -> None: ...

    async def status(self) -> pb.StatusResponse: ...

    def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[pb.WatchResponse]: ...


class Etcd:
    """One connection to an etcd cluster. Create it inside a running loop; ``close`` it."""

    def __init__(self, endpoints: Sequence[str], tls: TlsFiles | None) -> None:
        """``endpoints`` are URLs (``https://host:port``, ``http://`` only without ``tls``)."""
        self._targets = [endpoint.split("://", 1)[-1] for endpoint in endpoints]
        self._credentials = _credentials(tls) if tls else None
        self._next = 0
        self._channel = self._open()

    def _open(self) -> grpc.aio.Channel:
        target = self._targets[self._next % len(self._targets)]
        if self._credentials is None:
            channel = grpc.aio.insecure_channel(target, options=_OPTIONS)
        else:
            channel = grpc.aio.secure_channel(target, self._credentials, options=_OPTIONS)
        self._range = _unary(channel, "/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse)
        self._txn = _unary(channel, "/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse)
        self._compact = _unary(channel, "/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse)
        self._status = _unary(channel, "/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse)
        # grpc-stubs lack what streams take and return.
        self._watch: Any = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=pb.WatchRequest.SerializeToString,
            response_deserializer=pb.WatchResponse.FromString,
        )
        return channel

    async def close(self) -> None:
        """Close the connection; running calls fail with ``Unavailable``."""
        await self._channel.close(grace=None)

    async def _failed(self, err: grpc.aio.AioRpcError) -> Exception:
        code, text = err.code(), err.details() or ""
        if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in text:
            return Compacted(0)
        if len(self._targets) > 1 and code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            old = self._channel
            self._next += 1
            self._channel = self._open()
            await old.close(grace=1.0)
        return Unavailable(f"etcd: {code.name.lower().replace('_', ' ')}: {text}")

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=REQUEST_TIMEOUT_S)
        except grpc.aio.AioRpcError as err:
            raise await self._failed(err) from err

    async def range(
        self, key: bytes, range_end: bytes = b"", *, limit: int = 0, revision: int = 0, serializable: bool = False
    ) -> pb.RangeResponse:
        """Keys in ``[key, range_end)``, or just ``key``, at ``revision`` (0 = now). Raises ``Compacted``."""
        request = pb.RangeRequest(
            key=key, range_end=range_end, limit=limit, revision=revision, serializable=serializable
        )
        response: pb.RangeResponse = await self._call(self._range, request)
        return response

    async def txn(self, request: pb.TxnRequest) -> pb.TxnResponse:
        """Run a transaction. ``Unavailable`` leaves open whether it happened."""
        response: pb.TxnResponse = await self._call(self._txn, request)
        return response

    async def compact(self, revision: int) -> None:
        """Let etcd forget history before ``revision``. Raises ``Compacted`` if it already has."""
        await self._call(self._compact, pb.CompactionRequest(revision=revision))

    async def status(self) -> pb.StatusResponse:
        """Version, leader and header of the member that answers; a cheap liveness check."""
        response: pb.StatusResponse = await self._call(self._status, pb.StatusRequest())
        return response

    async def watch(self, key: bytes, range_end: bytes, start_revision: int) -> AsyncIterator[pb.WatchResponse]:
        """Every change of ``[key, range_end)`` from ``start_revision`` on, progress notifications included.

        One response carries all events of the revisions it spans. Raises ``Compacted`` or ``Unavailable``;
        never ends otherwise.
        """
        call = self._watch()
        try:
            create = pb.WatchCreateRequest(
                key=key, range_end=range_end, start_revision=start_revision, progress_notify=True
            )
            await call.write(pb.WatchRequest(create_request=create))
            while True:
                response = await call.read()
                if response is _EOF:
                    raise Unavailable("etcd: the watch stream ended")
                if response.compact_revision:
                    raise Compacted(response.compact_revision)
                if response.canceled:
                    raise Unavailable(f"etcd: watch refused: {response.cancel_reason}")
                yield response
        except grpc.aio.AioRpcError as err:
            raise await self._failed(err) from err
        except asyncio.InvalidStateError as err:  # grpc.aio, when the stream broke before the write
            raise Unavailable(f"etcd: {err}") from err
        finally:
            call.cancel()


def _unary(channel: grpc.aio.Channel, path: str, request: Any, response: Any) -> Any:
    return channel.unary_unary(
        path, request_serializer=request.SerializeToString, response_deserializer=response.FromString
    )


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    def read(path: Path) -> bytes:
        return path.read_bytes()

    return grpc.ssl_channel_credentials(
        root_certificates=read(tls.ca), private_key=read(tls.key), certificate_chain=read(tls.cert)
    )


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` that makes ``[prefix, end)`` cover every key starting with ``prefix``."""
    trimmed = prefix.rstrip(b"\xff")
    if not trimmed:
        return b"\x00"
    return trimmed[:-1] + bytes([trimmed[-1] + 1])

"""containerd's snapshot service, as far as it is needed: read-only views of unpacked images.

An image's layers are learned once from a view, which also keeps them from being collected; containers then get an
overlay with their own upper directory, without containerd. The published stubs do not load beside a current protobuf,
so the few messages are described here (``containerd/api/services/snapshots/v1/snapshots.proto``).
"""

from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "containerd.services.snapshots.v1"
_SWEEP_KEY = "sphere-sweep"
_T = descriptor_pb2.FieldDescriptorProto
_ANSWERS = {"View": "MountsResponse", "Prepare": "MountsResponse", "Mounts": "MountsResponse", "Remove": "Empty"}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="spherelet/snapshots.proto", package=_PACKAGE, syntax="proto3", dependency=[]
    )

    def message(name: str, *fields: tuple[str, int, int, int, str]) -> None:
        described = file.message_type.add(name=name)
        for field, number, label, kind, type_name in fields:
            described.field.add(name=field, number=number, label=label, type=kind, type_name=type_name or None)

    one, many, text, of = _T.LABEL_OPTIONAL, _T.LABEL_REPEATED, _T.TYPE_STRING, _T.TYPE_MESSAGE
    message("Mount", *[(n, i, one, text, "") for i, n in enumerate(("type", "source", "target"), 1)])
    file.message_type[0].field.add(name="options", number=4, label=many, type=text)
    message("Label", ("key", 1, one, text, ""), ("value", 2, one, text, ""))
    # A map field is, on the wire, a repeated message of key and value.
    message(
        "ViewSnapshotRequest",
        *[(n, i, one, text, "") for i, n in enumerate(("snapshotter", "key", "parent"), 1)],
        ("labels", 4, many, of, f".{_PACKAGE}.Label"),
    )
    message("KeyRequest", *[(n, i, one, text, "") for i, n in enumerate(("snapshotter", "key"), 1)])
    message("MountsResponse", ("mounts", 1, many, of, f".{_PACKAGE}.Mount"))
    message("Empty")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    names = ("ViewSnapshotRequest", "KeyRequest", "MountsResponse", "Empty")
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")) for name in names}


class Snapshots:
    """Client of the snapshot service on an open channel."""

    def __init__(self, channel: grpc.aio.Channel, namespace: str, snapshotter: str) -> None:
        self._types = _messages()
        self._snapshotter = snapshotter
        self._metadata = (("containerd-namespace", namespace),)
        self._calls = {
            name: channel.unary_unary(
                f"/{_PACKAGE}.Snapshots/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=self._types[answer].FromString,
            )
            for name, answer in _ANSWERS.items()
        }

    async def layers(self, chain: str) -> tuple[str, ...]:
        """Layer directories of the unpacked image with ``chain`` id, topmost first. Keeps them from collection.

        Raises ``grpc.aio.AioRpcError``: NOT_FOUND if that image is not unpacked.
        """
        key = f"sphere-view-{chain.removeprefix('sha256:')}"
        label = {"key": "containerd.io/gc.root", "value": "spherelet"}
        request = self._types["ViewSnapshotRequest"](
            snapshotter=self._snapshotter, key=key, parent=chain, labels=[label]
        )
        try:
            answer = await self._calls["View"](request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as err:
            if err.code() != grpc.StatusCode.ALREADY_EXISTS:
                raise
            again = self._types["KeyRequest"](snapshotter=self._snapshotter, key=key)
            answer = await self._calls["Mounts"](again, metadata=self._metadata, timeout=30)
        return layer_directories([(each.type, each.source, tuple(each.options)) for each in answer.mounts])

    async def release(self, chain: str) -> None:
        """Let the layers of ``chain`` be collected. Idempotent."""
        await self._remove(f"sphere-view-{chain.removeprefix('sha256:')}")

    async def sweep(self) -> None:
        """Have containerd remove directories of snapshots that it does not know any more.

        It looks for them after the removal of a snapshot only, and not again if it could not remove them: on a full
        disk the half of a layer would stay, and the disk full with it. So a snapshot is made, to be removed.
        """
        request = self._types["ViewSnapshotRequest"](snapshotter=self._snapshotter, key=_SWEEP_KEY)
        try:
            await self._calls["Prepare"](request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as err:
            if err.code() != grpc.StatusCode.ALREADY_EXISTS:
                raise
        await self._remove(_SWEEP_KEY)

    async def _remove(self, key: str) -> None:
        request = self._types["KeyRequest"](snapshotter=self._snapshotter, key=key)
        try:
            await self._calls["Remove"](request, metadata=self._metadata, timeout=30)
        except grpc.aio.AioRpcError as err:
            if err.code() != grpc.StatusCode.NOT_FOUND:
                raise


def layer_directories(mounts: list[tuple[str, str, tuple[str, ...]]]) -> tuple[str, ...]:
    """Directories of a read-only view's mount: one layer is a bind mount, several are an overlay. Pure."""
    for kind, source, options in mounts:
        if kind == "bind":
            return (source,)
        for option in options:
            if kind == "overlay" and option.startswith("lowerdir="):
                return tuple(option.removeprefix("lowerdir=").split(":"))
    raise ValueError(f"snapshot view is neither a bind nor an overlay mount: {mounts}; use the overlayfs snapshotter")

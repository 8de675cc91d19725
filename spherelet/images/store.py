"""Images of this host: pull policies, one pull per image at a time, and what is known stays known."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import orjson
from cri_api.v1 import api_pb2, api_pb2_grpc

from common.errors import Retryable
from common.logs import logger
from common.tasks import Wake
from spherelet.config import Containerd, pulls_max
from spherelet.images.explanation import is_disk_full, pull_message
from spherelet.images.snapshots import Snapshots
from spherelet.model import Image

PULL_TIMEOUT_S = 1800.0
STATUS_TIMEOUT_S = 20.0
SWEEP_TRIES = 5
SWEEP_RETRY_S = 0.2
REFERENCE = re.compile(
    r"^(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9+._-]+:[0-9a-fA-F]{32,})?$"
)

log = logger("images")


class ImageError(Retryable):
    """An image cannot be had now; ``reason`` is what Kubernetes shows (``ErrImagePull``, ``InvalidImageName``, ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Held:
    """An image that is on this host."""

    id: str
    names: frozenset[str]
    """Everything it can be called by: id, tags, digests."""
    size_bytes: int
    pinned: bool = False

    @property
    def title(self) -> str:
        """For logs."""
        return min(self.names - {self.id}, default=self.id)


class Images:
    """Client of containerd's CRI image service and snapshots, with a memory of images that are here."""

    def __init__(self, config: Containerd) -> None:
        # Small messages on a local socket: no retries, they are the caller's business.
        self._channel = grpc.aio.insecure_channel(
            f"unix://{config.socket}",
            options=[
                ("grpc.max_receive_message_length", 16 << 20),
                ("grpc.enable_http_proxy", 0),
                # A containerd that was away is back at once, not after the two minutes that gRPC may wait.
                ("grpc.initial_reconnect_backoff_ms", 200),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._service = api_pb2_grpc.ImageServiceStub(self._channel)
        self._snapshots = Snapshots(self._channel, config.namespace, config.snapshotter)
        self._known: dict[str, Image] = {}
        self._pulls = asyncio.Semaphore(pulls_max)
        self._unswept = False
        self.in_want = Wake()
        """Set when a pull found no room on the disk."""
        self._chains: dict[str, str] = {}
        """Chain id of the layers, by image id: what is kept from collection by a view."""
        self._locks: dict[str, asyncio.Lock] = {}

    async def close(self) -> None:
        await self._channel.close(None)

    def known(self, reference: str) -> Image | None:
        """What is remembered of ``reference``, if its layers are still on disk; no call."""
        image = self._known.get(reference)
        if image is not None and not all(Path(layer).is_dir() for layer in image.layers):
            del self._known[reference]
            return None
        return image

    async def status(self, reference: str) -> Image | None:
        """The image ``reference`` if it is here, else None. Raises ``ImageError`` if containerd does not answer."""
        try:
            answer = await self._service.ImageStatus(
                api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=reference), verbose=True),
                timeout=STATUS_TIMEOUT_S,
            )
            if not answer.image.id:
                return None
            info = orjson.loads(answer.info["info"])
            layers = await self._snapshots.layers(info["chainID"]) if info.get("chainID") else ()
        except grpc.aio.AioRpcError as err:
            if err.code() == grpc.StatusCode.NOT_FOUND:
                return None  # known, but not unpacked: pulling it again unpacks it
            raise ImageError("ImageInspectError", f'Failed to inspect image "{reference}": {_text(err)}') from err
        if info.get("chainID"):
            self._chains[answer.image.id] = info["chainID"]
        image = Image(
            id=answer.image.id,
            reference=next(iter(answer.image.repo_digests), answer.image.id),
            layers=layers,
            config=(info.get("imageSpec") or {}).get("config") or {},
        )
        self._known[reference] = image
        return image

    async def pull(self, reference: str, auth: Mapping[str, str] | None = None) -> Image:
        """Pull ``reference`` and return it. Raises ``ImageError`` with the registry's reason."""
        lock = self._locks.setdefault(reference, asyncio.Lock())
        async with lock, self._pulls:
            request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=reference))
            if auth:
                request.auth.CopyFrom(api_pb2.AuthConfig(**auth))
            if self._unswept:
                await self._sweep(tries=1)
            try:
                await self._service.PullImage(request, timeout=PULL_TIMEOUT_S)
            except grpc.aio.AioRpcError as err:
                if is_disk_full(err.details() or ""):
                    self._unswept = True
                    self.in_want.set()
                    await self._sweep(SWEEP_TRIES)
                text = pull_message(_text(err), err.code().name, with_credentials=bool(auth))
                raise ImageError("ErrImagePull", text) from err
            image = await self.status(reference)
        if image is None:
            raise ImageError(
                "ErrImagePull", f'image "{reference}" was pulled but is not there; is something removing it?'
            )
        return image

    async def _sweep(self, tries: int) -> None:
        """Free the disk of what a pull has left that the disk had no room for. If it fails, the next pull tries it."""
        for _ in range(tries):
            try:
                await self._snapshots.sweep()
            except grpc.aio.AioRpcError as err:
                # Still full; what was downloaded is being collected, and that makes room for containerd's own notes.
                log.info("snapshots not swept", reason=_text(err))
                await asyncio.sleep(SWEEP_RETRY_S)
            else:
                self._unswept = False
                return

    async def held(self) -> "list[Held]":
        """All images that are here. Raises ``grpc.aio.AioRpcError``."""
        answer = await self._service.ListImages(api_pb2.ListImagesRequest(), timeout=STATUS_TIMEOUT_S)
        return [
            Held(each.id, frozenset((each.id, *each.repo_tags, *each.repo_digests)), int(each.size), bool(each.pinned))
            for each in answer.images
        ]

    async def remove(self, image: Held) -> None:
        """Remove an image that no container uses, and let its layers be collected. Raises ``SphereError``, as gRPC."""
        await self.status(image.id)  # to learn which layers it has
        for reference in [name for name, known in self._known.items() if known.id == image.id]:
            del self._known[reference]
        request = api_pb2.RemoveImageRequest(image=api_pb2.ImageSpec(image=image.id))
        await self._service.RemoveImage(request, timeout=STATUS_TIMEOUT_S)
        chain = self._chains.pop(image.id, "")
        if chain and chain not in self._chains.values():
            await self._snapshots.release(chain)

    async def list(self) -> list[dict[str, Any]]:
        """``names`` and ``sizeBytes`` of each image, as a Node reports them."""
        answer = await self._service.ListImages(api_pb2.ListImagesRequest(), timeout=STATUS_TIMEOUT_S)
        return [{"names": [*each.repo_digests, *each.repo_tags], "sizeBytes": int(each.size)} for each in answer.images]

    async def disk(self) -> tuple[int, int]:
        """Bytes and inodes that images use."""
        answer = await self._service.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=STATUS_TIMEOUT_S)
        found = answer.image_filesystems
        return sum(each.used_bytes.value for each in found), sum(each.inodes_used.value for each in found)

    async def mount_points(self) -> Sequence[Path]:
        """A directory on each file system that images are on. Raises ``grpc.aio.AioRpcError``."""
        answer = await self._service.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=STATUS_TIMEOUT_S)
        return tuple(Path(each.fs_id.mountpoint) for each in answer.image_filesystems if each.fs_id.mountpoint)


def check_reference(reference: str) -> None:
    """Raise ``ImageError`` (``InvalidImageName``) unless ``reference`` can name an image. Pure."""
    if not REFERENCE.match(reference):
        raise ImageError(
            "InvalidImageName",
            f'Failed to apply default image tag "{reference}": couldn\'t parse image name "{reference}": '
            "invalid reference format",
        )


def _text(err: grpc.aio.AioRpcError) -> str:
    if err.code() == grpc.StatusCode.UNAVAILABLE:
        return f"containerd does not answer ({err.details()}); is it running on this host?"
    return err.details() or err.code().name

"""Directories of volumes that were made on this host and are deleted: first the data go, then the finalizer.

A volume stays in the API until its directory is gone, so a crash at any step is finished by the next start. Nothing
is removed that no volume speaks of, nothing while a claim is bound to it or a pod of this host still has it, and
nothing whose policy is Retain.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from common.clock import Clock
from common.errors import Retryable
from common.logs import logger
from common.tasks import KeyQueue
from spherelet.runtime import mounts
from spherelet.volumes.claims import HOST_LABEL, PROVISIONER, directory_below, is_provisioned

Object = dict[str, Any]
PATH: Final = "/api/v1/persistentvolumes"
_PROTECTION: Final = "kubernetes.io/pv-protection"
log = logger("volumes")


class Api(Protocol):
    """What is needed of ``common.kube.KubeClient``."""

    async def patch(self, path: str, body: object, content_type: str = ...) -> Object: ...

    async def follow(
        self,
        path: str,
        params: Mapping[str, str],
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[str, Object], None],
    ) -> None: ...


class Reclaimer:
    """See the module. ``pods_dir`` has what pods of this host use."""

    def __init__(self, api: Api, clock: Clock, host: str, volumes_dir: Path, pods_dir: Path) -> None:
        self._api = api
        self._host = host
        self._volumes_dir = volumes_dir
        self._pods_dir = pods_dir
        self._volumes: dict[str, Object] = {}
        self._queue: KeyQueue[str] = KeyQueue(clock)

    async def run(self) -> None:
        """Follow the volumes of this host until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._queue.run(self._one))
            wanted = {"labelSelector": f"{HOST_LABEL}={self._host}"}
            await self._api.follow(PATH, wanted, self._on_list, self._on_event)

    def _on_list(self, volumes: list[Object]) -> None:
        self._volumes = {str(each["metadata"]["name"]): each for each in volumes}
        for name in self._volumes:
            self._queue.add(name)

    def _on_event(self, kind: str, volume: Object) -> None:
        name = str(volume["metadata"]["name"])
        if kind == "DELETED":
            self._volumes.pop(name, None)
        else:
            self._volumes[name] = volume
            self._queue.add(name)

    async def _one(self, name: str) -> None:
        volume = self._volumes.get(name)
        if volume is None or not is_due(volume, self._host):
            return
        meta = volume["metadata"]
        if volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete":
            directory = directory_below(self._volumes_dir, name)  # the API allows no other names
            await asyncio.to_thread(_remove, directory, self._pods_dir)
            log.info("removed", object=name, path=str(directory))
        rest = [each for each in meta["finalizers"] if each != PROVISIONER]
        patch = {"metadata": {"finalizers": rest, "uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}}
        # Not found or a conflict: the watch brings what has happened, and until then this is tried again.
        await self._api.patch(f"{PATH}/{name}", patch, "application/merge-patch+json")


def is_due(volume: Object, host: str) -> bool:
    """Whether nobody but this host has still to do with a volume that is deleted."""
    meta = volume["metadata"]
    held = meta.get("finalizers") or ()
    ours = is_provisioned(volume) and (meta.get("labels") or {}).get(HOST_LABEL) == host
    return ours and "deletionTimestamp" in meta and PROVISIONER in held and _PROTECTION not in held


def _remove(directory: Path, pods_dir: Path) -> None:
    """Raises ``Retryable`` while something uses the directory."""
    for link in pods_dir.glob("*/volumes/*"):
        if link.is_symlink() and os.readlink(link) == str(directory):
            raise Retryable(f"{directory} is still used by pod {link.parent.parent.name}")
    if mounts.below(directory):
        raise Retryable(f"something is mounted below {directory}")
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as err:
        raise Retryable(f"cannot remove {directory}: {err.strerror}") from err

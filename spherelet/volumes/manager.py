"""Volumes of pods: made before containers, kept current while they run, removed without a trace.

Layout: ``<pod_dir>/volumes/<volume name>`` and ``<pod_dir>/volume-subpaths/<container>/<mount index>``. A persistent
volume is a link there: to what its claim was bound to when the pod first got it, so that the API is asked only once.
"""

import asyncio
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.clock import Clock
from common.errors import Retryable, SphereError, Terminal
from common.quantity import Quantity
from common.tasks import KeyQueue
from spherelet.model import Image
from spherelet.runtime import mounts
from spherelet.volumes import ownership, payload, references, subpath, writer
from spherelet.volumes.claims import Claims, Directory
from spherelet.volumes.expansion import expand
from spherelet.volumes.payload import File, PodFacts
from spherelet.volumes.references import Ref
from spherelet.volumes.sources import Sources

Object = dict[str, Any]
VOLUMES: Final = "volumes"
SUBPATHS: Final = "volume-subpaths"
PAYLOAD_BYTES_MAX: Final = 16 << 20
"""Size of the memory file system below Secrets and tokens; a Secret is 1 MiB at most."""
CONTENT_KINDS: Final = ("configMap", "secret", "downwardAPI", "projected")


@dataclass(slots=True)
class _Mounted:
    pod: Object
    directory: Path


class Volumes:
    """See ``spherelet.seams.Volumes``. ``run`` keeps contents current."""

    def __init__(
        self, sources: Sources, claims: Claims, clock: Clock, host_ip: str, allocatable: Mapping[str, str]
    ) -> None:
        self._sources = sources
        self._claims = claims
        self._clock = clock
        self._host_ip = host_ip
        self._allocatable = allocatable
        self._mounted: dict[str, _Mounted] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        """By pod: set-up, refresh and teardown of one pod never overlap."""
        self._queue: KeyQueue[str] = KeyQueue(clock)
        sources.listeners.append(self._queue.add)

    async def run(self) -> None:
        """Rewrite volumes whose sources changed and tokens that grow old, until cancelled."""
        await self._queue.run(self._refresh)

    async def setup(self, pod: Object, pod_dir: Path, images: Mapping[str, Image]) -> Mapping[str, Path]:
        """Make or refresh all volumes; host path by volume name. ``images`` by volume name. Idempotent.

        Raises ``Retryable`` or ``Terminal`` with the text of the FailedMount event.
        """
        uid = str(pod["metadata"]["uid"])
        self._sources.retain(uid, references.of_pod(pod))
        async with self._locks.setdefault(uid, asyncio.Lock()):
            return await self._setup(uid, pod, pod_dir, images)

    async def _setup(self, uid: str, pod: Object, pod_dir: Path, images: Mapping[str, Image]) -> Mapping[str, Path]:
        paths: dict[str, Path] = {}
        renew_s = None
        for volume in pod["spec"].get("volumes") or ():
            name = str(volume["name"])
            try:
                path = pod_dir / VOLUMES / name
                if "image" in volume:
                    await asyncio.to_thread(_image, path, images[name].layers)
                    paths[name], after_s = path, None
                else:
                    paths[name], after_s = await self._one(pod, volume, path)
            except SphereError as err:
                raise type_of(err)(f'MountVolume.SetUp failed for volume "{name}" : {err}') from err
            except OSError as err:
                raise Retryable(f'MountVolume.SetUp failed for volume "{name}" : {err}') from err
            if after_s is not None:
                renew_s = after_s if renew_s is None else min(renew_s, after_s)
        known = uid in self._mounted
        self._mounted[uid] = _Mounted(pod, pod_dir)
        if not known and renew_s is not None:
            self._queue.add(uid)  # its worker then keeps the time
        return paths

    async def _refresh(self, uid: str) -> float | None:
        mounted = self._mounted.get(uid)
        if mounted is None:
            return None
        async with self._locks.setdefault(uid, asyncio.Lock()):
            return await self._rewrite(mounted) if uid in self._mounted else None

    async def _rewrite(self, mounted: _Mounted) -> float | None:
        renew_s = None
        for volume in mounted.pod["spec"].get("volumes") or ():
            if not any(kind in volume for kind in CONTENT_KINDS):
                continue
            try:
                _, after_s = await self._one(mounted.pod, volume, mounted.directory / VOLUMES / volume["name"])
            except Terminal:
                continue  # setup says so to the user; what is mounted stays
            except OSError as err:
                raise Retryable(str(err)) from err
            if after_s is not None:
                renew_s = after_s if renew_s is None else min(renew_s, after_s)
        return renew_s

    async def _one(self, pod: Object, volume: Object, path: Path) -> tuple[Path, float | None]:
        """Host path of one volume, and after how many seconds its content must be renewed."""
        group = payload.fs_group(pod)
        if "emptyDir" in volume:
            await asyncio.to_thread(_empty_dir, volume["emptyDir"] or {}, path, group)
            return path, None
        if "hostPath" in volume:
            source = volume["hostPath"]
            target = Path(source["path"])
            await asyncio.to_thread(check_host_path, target, str(source.get("type") or ""))
            return target, None
        if any(kind in volume for kind in CONTENT_KINDS):
            files, renew_s = await self._files(pod, volume)
            await asyncio.to_thread(_content, path, files, group, memory="configMap" not in volume)
            return path, renew_s
        if "persistentVolumeClaim" in volume or "ephemeral" in volume:
            return await self._persistent(pod, volume, path), None
        kind = next((key for key in volume if key != "name"), "none")
        raise Terminal(
            f"volume type {kind} is not supported; "
            "use emptyDir, configMap, secret, projected, image, hostPath or a persistentVolumeClaim"
        )

    async def _persistent(self, pod: Object, volume: Object, link: Path) -> Path:
        known = await asyncio.to_thread(_link_of, link)
        if known is not None:
            return known
        found = await self._claims.find(pod, volume)
        is_read_only = bool((volume.get("persistentVolumeClaim") or {}).get("readOnly"))
        group = None if is_read_only or found.kind == "hostPath" else payload.fs_group(pod)
        lazy = (pod["spec"].get("securityContext") or {}).get("fsGroupChangePolicy") == "OnRootMismatch"
        await asyncio.to_thread(_directory, found, group, link, only_on_mismatch=lazy)
        return found.path

    async def _files(self, pod: Object, volume: Object) -> tuple[dict[str, File], float | None]:
        namespace = str(pod["metadata"].get("namespace", "default"))
        facts = PodFacts(pod, self._host_ip, _pod_ips(pod), self._allocatable)
        projected = volume.get("projected")
        sources = (projected.get("sources") or ()) if projected is not None else (volume,)
        mode = int(projected.get("defaultMode", payload.DEFAULT_MODE)) if projected is not None else None
        files: dict[str, File] = {}
        renew_s: float | None = None
        for source in sources:
            if "configMap" in source:
                named = source["configMap"]
                body = await self._sources.get(Ref("configmaps", namespace, str(named.get("name", ""))))
                files |= payload.of_config_map(named, body, mode)
            elif "secret" in source:
                named = source["secret"]
                name = str(named.get("secretName") or named.get("name") or "")
                body = await self._sources.get(Ref("secrets", namespace, name))
                files |= payload.of_secret(named, body, mode)
            elif "downwardAPI" in source:
                files |= payload.of_downward(source["downwardAPI"], facts, mode)
            elif "serviceAccountToken" in source:
                wanted = source["serviceAccountToken"]
                expiration = int(wanted.get("expirationSeconds") or 3600)
                token = await self._sources.token(pod, str(wanted.get("audience") or ""), expiration)
                after_s = max(1.0, token.renew_at - self._clock.now())
                renew_s = after_s if renew_s is None else min(renew_s, after_s)
                user, group = payload.fs_user(pod), payload.fs_group(pod)
                token_mode = payload.DEFAULT_MODE if mode is None else mode
                files |= payload.of_token(wanted, token.text, token_mode, uid=user, fs_group=group)
            else:
                raise Terminal(f"projected source {', '.join(source)} is not supported")
        return files, renew_s

    async def subpaths(
        self, container: Object, pod_dir: Path, paths: Mapping[str, Path], env: Mapping[str, str]
    ) -> Mapping[int, Path]:
        """Host paths of the container's volumeMounts that have a subPath, by their index.

        Raises ``Terminal`` or ``Retryable`` with the CreateContainerConfigError text.
        """
        bound: dict[int, Path] = {}
        for index, each in enumerate(container.get("volumeMounts") or ()):
            sub = str(each.get("subPath") or "") or expand(str(each.get("subPathExpr") or ""), env)
            if sub and each["name"] in paths:
                target = pod_dir / SUBPATHS / str(container["name"]) / str(index)
                bound[index] = await asyncio.to_thread(subpath.bind, paths[each["name"]], sub, target)
        return bound

    async def teardown(self, pod_dir: Path) -> None:
        """Unmount and remove everything below ``pod_dir`` that this class made. Idempotent. Raises ``Retryable``."""
        uid = pod_dir.name
        self._mounted.pop(uid, None)
        self._sources.retain(uid, frozenset())
        async with self._locks.setdefault(uid, asyncio.Lock()):
            await asyncio.to_thread(_remove, pod_dir)
        self._locks.pop(uid, None)


def type_of(err: SphereError) -> type[SphereError]:
    """``Retryable`` or ``Terminal``, whatever subclass ``err`` is."""
    return Terminal if isinstance(err, Terminal) else Retryable


def _pod_ips(pod: Object) -> tuple[str, ...]:
    status = pod.get("status") or {}
    many = tuple(str(each["ip"]) for each in status.get("podIPs") or () if each.get("ip"))
    return many or ((str(status["podIP"]),) if status.get("podIP") else ())


def _image(path: Path, layers: tuple[str, ...]) -> None:
    if not mounts.is_bound(path):
        path.mkdir(parents=True, exist_ok=True)
        mounts.show(layers, path)


def _empty_dir(source: Object, path: Path, group: int | None) -> None:
    mode = 0o777 if group is None else 0o2777
    if str(source.get("medium") or "") == "Memory":
        path.mkdir(parents=True, exist_ok=True)
        if mounts.is_mount(path):
            return
        limit = source.get("sizeLimit")
        options = f"mode={mode:o}" + (f",gid={group}" if group is not None else "")
        options += f",size={-(-Quantity.parse(limit).nanos // 10**9)}" if limit is not None else ""
        mounts.mount("tmpfs", path, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
    elif not path.exists():
        # Complete before it is seen: a directory half-made by a crash would be taken for the container's own work.
        fresh = path.with_name(f".{path.name}.new")
        fresh.mkdir(parents=True, exist_ok=True)
        if group is not None:
            os.chown(fresh, -1, group)
        os.chmod(fresh, mode)
        os.rename(fresh, path)


def _content(path: Path, files: Mapping[str, File], group: int | None, *, memory: bool) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if memory and not mounts.is_mount(path):
        options = f"mode=755,size={PAYLOAD_BYTES_MAX}"
        mounts.mount("tmpfs", path, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
    writer.write(path, files, group=group)
    if group is not None:
        os.chown(path, -1, group)
        os.chmod(path, 0o2755)


def _link_of(link: Path) -> Path | None:
    return Path(os.readlink(link)) if link.is_symlink() else None


def _directory(found: Directory, group: int | None, link: Path, *, only_on_mismatch: bool) -> None:
    """Make or check the directory of a persistent volume, and remember it by ``link`` once the pod may have it."""
    if found.kind == "hostPath":
        check_host_path(found.path, found.host_path_type)
    elif found.kind == "made" and not found.path.exists():
        found.path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        fresh = found.path.with_name(f".{found.path.name}.new")
        fresh.mkdir(exist_ok=True)
        os.chmod(fresh, 0o777)
        os.rename(fresh, found.path)
    elif not found.path.is_dir():
        raise Retryable(f'path "{found.path}" does not exist or is no directory')
    if group is not None:
        ownership.give_to_group(found.path, group, only_on_mismatch=only_on_mismatch)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(found.path)


def check_host_path(path: Path, kind: str) -> None:
    """Check or create a hostPath by its type. Raises ``Retryable`` in upstream's words: the host may yet get it."""
    if kind == "DirectoryOrCreate" and not path.exists():
        path.mkdir(parents=True, mode=0o755)
    if kind == "FileOrCreate" and not path.exists():
        path.touch(mode=0o644)
    checks = {
        "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
        "Directory": (stat.S_ISDIR, "a directory"),
        "FileOrCreate": (stat.S_ISREG, "a file"),
        "File": (stat.S_ISREG, "a file"),
        "Socket": (stat.S_ISSOCK, "a socket file"),
        "CharDevice": (stat.S_ISCHR, "a character device"),
        "BlockDevice": (stat.S_ISBLK, "a block device"),
    }
    if kind == "":
        if not path.exists():
            path.mkdir(parents=True, mode=0o755)  # what container runtimes do for a missing source
        return
    if kind not in checks:
        raise Terminal(f"hostPath type check failed: {kind} is not a valid type")
    check, what = checks[kind]
    try:
        mode = path.stat().st_mode
    except OSError as err:
        raise Retryable(f"hostPath type check failed: {path} is not {what}") from err
    if not check(mode):
        raise Retryable(f"hostPath type check failed: {path} is not {what}")


def _remove(pod_dir: Path) -> None:
    """Never follows a link out, never enters a mount: ``rmtree`` runs only when nothing is mounted below any more."""
    for top in (pod_dir / SUBPATHS, pod_dir / VOLUMES):
        if not top.exists():
            continue
        for point in mounts.below(top):
            mounts.unmount(point)
        left = mounts.below(top)
        if left:
            raise Retryable(f"{left[0]} is still mounted")
        try:
            shutil.rmtree(top)
        except FileNotFoundError:
            continue
        except OSError as err:
            raise Retryable(f"cannot remove {top}: {err.strerror}") from err

"""Claims of pods on this host's disk: found, kept over pods, owned by fsGroup, and removed with their volume only."""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.errors import Retryable, SphereError, Terminal
from spherelet.runtime import mounts
from spherelet.volumes.claims import HOST_LABEL, PROVISIONED_BY, PROVISIONER, Claims
from spherelet.volumes.reclaim import Reclaimer
from tests.integration.spherelet.test_volumes import a_pod, manager, until
from tests.support.object_sources import FakeApi

pytestmark = [pytest.mark.integration, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
Object = dict[str, Any]


def put_claim(api: FakeApi, volume: str, **metadata: Any) -> None:
    api.put("persistentvolumeclaims", "shop", "data", spec={"volumeName": volume})
    api.objects["persistentvolumeclaims", "shop", "data"]["metadata"] |= {"uid": "claim-1", **metadata}


def put_volume(api: FakeApi, name: str, *, made: bool = False, **spec: Any) -> None:
    api.put("persistentvolumes", "", name, spec={"claimRef": {"uid": "claim-1"}, **spec})
    if made:
        meta = {"annotations": {PROVISIONED_BY: PROVISIONER}, "labels": {HOST_LABEL: "host-1"}}
        api.objects["persistentvolumes", "", name]["metadata"] |= meta


def claiming(**source: Any) -> Object:
    return {"name": "data", "persistentVolumeClaim": {"claimName": "data", **source}}


async def test_data_outlive_pods(tmp_path: Path) -> None:
    """The directory is made for the first pod, shared through subPath, and whole for the next one."""
    api = FakeApi()
    put_volume(api, "pvc-1", made=True, local={"path": "pvc-1"})
    put_claim(api, "pvc-1")
    claims = Claims(api, "host-1", tmp_path / "persistent")
    async with manager(api, claims) as volumes:
        pod = a_pod(claiming(), securityContext={"fsGroup": 4321})
        container = {"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/d", "subPath": "a/b"}]}
        paths = await volumes.setup(pod, tmp_path / "pods/uid-1", {})
        assert paths["data"] == tmp_path / "persistent/pvc-1"
        assert (paths["data"].stat().st_gid, stat.S_IMODE(paths["data"].stat().st_mode)) == (4321, 0o2777)
        subs = await volumes.subpaths(container, tmp_path / "pods/uid-1", paths, {})
        (subs[0] / "kept").write_text("data")
        api.objects.clear()
        assert await volumes.setup(pod, tmp_path / "pods/uid-1", {}) == paths, "the API is not asked again"
        await volumes.teardown(tmp_path / "pods/uid-1")
        put_volume(api, "pvc-1", made=True, local={"path": "pvc-1"})
        put_claim(api, "pvc-1")
        paths = await volumes.setup(pod, tmp_path / "pods/uid-2", {})
        assert (paths["data"] / "a/b/kept").read_text() == "data"
        await volumes.teardown(tmp_path / "pods/uid-2")
    assert (tmp_path / "persistent/pvc-1/a/b/kept").read_text() == "data"
    assert mounts.below(tmp_path) == []


async def test_the_group_gets_what_other_pods_wrote_but_no_links(tmp_path: Path) -> None:
    api = FakeApi()
    disk, outside = tmp_path / "disk", tmp_path / "outside"
    (disk / "sub").mkdir(parents=True)
    (disk / "sub/file").write_text("x")
    (disk / "sub/file").chmod(0o600)
    outside.write_text("x")
    (disk / "link").symlink_to(outside)
    put_volume(api, "v", local={"path": str(disk)})
    put_claim(api, "v")
    async with manager(api, Claims(api, "host-1", tmp_path / "persistent")) as volumes:
        pod = a_pod(claiming(), securityContext={"fsGroup": 4321})
        assert (await volumes.setup(pod, tmp_path / "pods/uid-1", {}))["data"] == disk
        await volumes.teardown(tmp_path / "pods/uid-1")
    assert ((disk / "sub/file").stat().st_gid, stat.S_IMODE((disk / "sub/file").stat().st_mode)) == (4321, 0o660)
    assert stat.S_IMODE((disk / "sub").stat().st_mode) & 0o2070 == 0o2070
    assert outside.stat().st_gid != 4321


def _unbound(api: FakeApi) -> None:
    put_claim(api, "")


def _deleted(api: FakeApi) -> None:
    put_claim(api, "v", deletionTimestamp="2030-01-01T00:00:00Z")


def _of_another(api: FakeApi) -> None:
    put_claim(api, "v")
    put_volume(api, "v", claimRef={"uid": "claim-2"}, hostPath={"path": "/srv"})


def _absent_path(api: FakeApi) -> None:
    put_claim(api, "v")
    put_volume(api, "v", local={"path": "/none/such"})


def _elsewhere(api: FakeApi) -> None:
    put_claim(api, "v")
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["host-2"]}]}
    put_volume(api, "v", hostPath={"path": "/srv"}, nodeAffinity={"required": {"nodeSelectorTerms": [term]}})


def _foreign(api: FakeApi) -> None:
    put_claim(api, "v")
    put_volume(api, "v", nfs={"server": "s", "path": "/"})


@pytest.mark.parametrize(
    ("world", "kind", "text"),
    [
        (_unbound, Retryable, "PVC is not bound"),
        (_deleted, Retryable, "PVC is being deleted"),
        (_of_another, Retryable, "is not bound to it"),
        (_absent_path, Retryable, '"/none/such" does not exist'),
        (_elsewhere, Terminal, "no matching NodeSelectorTerms"),
        (_foreign, Terminal, "use local or hostPath"),
    ],
)
async def test_why_a_pod_waits(
    tmp_path: Path, world: Callable[[FakeApi], None], kind: type[SphereError], text: str
) -> None:
    api = FakeApi()
    world(api)
    async with manager(api, Claims(api, "host-1", tmp_path)) as volumes:
        with pytest.raises(kind, match=r"^MountVolume\.SetUp failed") as caught:
            await volumes.setup(a_pod(claiming()), tmp_path / "pods/uid-1", {})
        await volumes.teardown(tmp_path / "pods/uid-1")
    assert text in str(caught.value)


class VolumesOfHost:
    """The API's part of reclaiming: what is listed, and what is patched."""

    def __init__(self) -> None:
        self.patched: dict[str, list[str]] = {}
        self.failures = 0
        self.heard: Callable[[list[Object]], None] | None = None

    async def patch(self, path: str, body: object, content_type: str = "") -> Object:
        assert isinstance(body, dict)
        if self.failures:
            self.failures -= 1
            raise Retryable("away")
        self.patched[path.rsplit("/", 1)[1]] = body["metadata"]["finalizers"]
        return {}

    async def follow(
        self,
        path: str,
        params: Mapping[str, str],
        on_list: Callable[[list[Object]], None],
        on_event: Callable[[str, Object], None],
    ) -> None:
        assert params == {"labelSelector": f"{HOST_LABEL}=host-1"}
        self.heard = on_list
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def reclaiming(api: VolumesOfHost, root: Path) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        reclaimer = Reclaimer(api, SystemClock(), "host-1", root / "persistent", root / "pods")
        task = group.create_task(reclaimer.run())
        await until(lambda: api.heard is not None)
        yield
        task.cancel()


def provisioned(root: Path, name: str, *held: str, policy: str = "Delete", **metadata: Any) -> Object:
    folder = root / "persistent" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text("data")
    meta = {
        "name": name,
        "uid": name,
        "resourceVersion": "1",
        "annotations": {PROVISIONED_BY: PROVISIONER},
        "labels": {HOST_LABEL: "host-1"},
        "finalizers": [PROVISIONER, *held],
        "deletionTimestamp": "2030-01-01T00:00:00Z",
        **metadata,
    }
    return {"metadata": meta, "spec": {"persistentVolumeReclaimPolicy": policy}}


async def test_only_what_is_deleted_and_unused_is_removed(tmp_path: Path) -> None:
    api = VolumesOfHost()
    live = provisioned(tmp_path, "live")
    del live["metadata"]["deletionTimestamp"]
    listed = [
        live,
        provisioned(tmp_path, "bound", "kubernetes.io/pv-protection"),
        provisioned(tmp_path, "elsewhere", labels={HOST_LABEL: "host-2"}),
        provisioned(tmp_path, "static", annotations={}),
        provisioned(tmp_path, "retained", policy="Retain"),
        provisioned(tmp_path, "used"),
        provisioned(tmp_path, "gone"),
    ]
    provisioned(tmp_path, "unknown")
    link = tmp_path / "pods/uid-1/volumes/data"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "persistent/used")
    api.failures = 1
    async with reclaiming(api, tmp_path):
        assert os.listdir(tmp_path / "persistent/gone"), "nothing before the list was heard"
        assert api.heard is not None
        api.heard(listed)
        await until(lambda: set(api.patched) == {"gone", "retained"})
        left = {"live", "bound", "elsewhere", "static", "retained", "used", "unknown"}
        assert set(os.listdir(tmp_path / "persistent")) == left
        link.unlink()
        await until(lambda: "used" in api.patched)
    assert not (tmp_path / "persistent/used").exists()
    assert api.patched["gone"] == []

"""Volumes with real mounts: contents, updates, owners, and removal without a trace."""

import asyncio
import contextlib
import os
import stat
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from common.clock import SystemClock
from common.errors import Retryable, Terminal
from spherelet.model import Image
from spherelet.runtime import mounts
from spherelet.volumes.claims import Claims
from spherelet.volumes.manager import Volumes
from spherelet.volumes.sources import Sources
from spherelet.volumes.subpath import bind
from tests.support.object_sources import FakeApi

pytestmark = [pytest.mark.integration, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@contextlib.asynccontextmanager
async def manager(api: FakeApi, claims: Claims | None = None) -> AsyncIterator[Volumes]:
    clock = SystemClock()
    sources = Sources(api, clock)
    volumes = Volumes(sources, claims or Claims(api, "host-1", Path("/none")), clock, "172.30.0.11", {"cpu": "4"})
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sources.run()), group.create_task(volumes.run())]
        yield volumes
        for task in tasks:
            task.cancel()


def a_pod(*volumes: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-1", "labels": {"b": "2", "a": 'x"y'}},
        "spec": {"volumes": list(volumes), "containers": [{"name": "main"}], **spec},
    }


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_contents_and_removal(tmp_path: Path) -> None:
    api = FakeApi()
    api.put("configmaps", "shop", "cfg", data={"key": "value", "other": "o"})
    api.put("configmaps", "shop", "kube-root-ca.crt", data={"ca.crt": "PEM"})
    api.put("secrets", "shop", "db", type="Opaque", data={"password": b64encode(b"s3cret").decode()})
    pod = a_pod(
        {"name": "scratch", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "config", "configMap": {"name": "cfg", "items": [{"key": "key", "path": "a/b", "mode": 0o600}]}},
        {"name": "secret", "secret": {"secretName": "db", "defaultMode": 0o400}},
        {
            "name": "api",
            "projected": {
                "defaultMode": 0o644,
                "sources": [
                    {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                ],
            },
        },
        {"name": "missing", "configMap": {"name": "none", "optional": True}},
    )
    pod_dir = tmp_path / "uid-1"
    async with manager(api) as volumes:
        paths = await volumes.setup(pod, pod_dir, {})
        assert await volumes.setup(pod, pod_dir, {}) == paths
        assert stat.S_IMODE(paths["scratch"].stat().st_mode) == 0o777
        assert os.statvfs(paths["memory"]).f_blocks * os.statvfs(paths["memory"]).f_frsize == 1 << 20
        assert (paths["config"] / "a/b").read_text() == "value"
        assert (paths["secret"] / "password").read_bytes() == b"s3cret"
        assert stat.S_IMODE((paths["secret"] / "password").stat().st_mode) == 0o400
        assert mounts.is_mount(paths["secret"]), "secrets never touch the disk"
        assert (paths["api"] / "token").read_text() == "token-1"
        assert (paths["api"] / "ca.crt").read_text() == "PEM"
        assert (paths["api"] / "labels").read_text() == 'a="x\\"y"\nb="2"'
        assert [name for name in os.listdir(paths["missing"]) if not name.startswith("..")] == []
        outside = tmp_path / "outside"
        outside.write_text("kept")
        (paths["scratch"] / "link").symlink_to(outside)
        await volumes.teardown(pod_dir)
        await volumes.teardown(pod_dir)
    assert os.listdir(pod_dir) == []
    assert mounts.below(tmp_path) == []
    assert outside.read_text() == "kept"


async def test_changes_arrive_without_being_asked_for(tmp_path: Path) -> None:
    api = FakeApi()
    api.put("configmaps", "shop", "cfg", data={"key": "old"})
    pod = a_pod({"name": "config", "configMap": {"name": "cfg"}})
    async with manager(api) as volumes:
        paths = await volumes.setup(pod, tmp_path / "uid-1", {})
        api.put("configmaps", "shop", "cfg", data={"key": "new", "more": "1"})
        await until(lambda: (paths["config"] / "key").read_text() == "new")
        assert (paths["config"] / "more").read_text() == "1"
        await volumes.teardown(tmp_path / "uid-1")


async def test_fs_group_owns_and_reads(tmp_path: Path) -> None:
    api = FakeApi()
    api.put("secrets", "shop", "db", type="Opaque", data={"p": b64encode(b"x").decode()})
    token = {"serviceAccountToken": {"path": "token"}}
    pod = a_pod(
        {"name": "scratch", "emptyDir": {}},
        {"name": "secret", "secret": {"secretName": "db", "defaultMode": 0o400}},
        {"name": "token", "projected": {"sources": [token]}},
        securityContext={"fsGroup": 4321, "runAsUser": 1234},
    )
    async with manager(api) as volumes:
        paths = await volumes.setup(pod, tmp_path / "uid-1", {})
        assert paths["scratch"].stat().st_gid == 4321
        assert stat.S_IMODE(paths["scratch"].stat().st_mode) == 0o2777
        secret = (paths["secret"] / "p").stat()
        assert (secret.st_gid, stat.S_IMODE(secret.st_mode)) == (4321, 0o440)
        bound = (paths["token"] / "token").stat()
        assert (bound.st_uid, bound.st_gid, stat.S_IMODE(bound.st_mode)) == (1234, 4321, 0o640)
        await volumes.teardown(tmp_path / "uid-1")


@pytest.mark.parametrize(
    ("volume", "kind", "message"),
    [
        (
            {"configMap": {"name": "no"}},
            Retryable,
            'MountVolume.SetUp failed for volume "v" : configmap "no" not found',
        ),
        (
            {"secret": {"secretName": "no"}},
            Retryable,
            'MountVolume.SetUp failed for volume "v" : secret "no" not found',
        ),
        (
            {"configMap": {"name": "cfg", "items": [{"key": "k", "path": "k"}]}},
            Retryable,
            "configmap references non-existent config key: k",
        ),
        ({"hostPath": {"path": "/etc/passwd", "type": "Directory"}}, Retryable, "/etc/passwd is not a directory"),
        ({"persistentVolumeClaim": {"claimName": "c"}}, Retryable, '"c" not found'),
        ({"secret": {"secretName": "db", "items": [{"key": "p", "path": "../up"}]}}, Terminal, "must not contain"),
    ],
)
async def test_failures_name_the_cause(
    tmp_path: Path, volume: dict[str, Any], kind: type[Exception], message: str
) -> None:
    api = FakeApi()
    api.put("configmaps", "shop", "cfg", data={})
    api.put("secrets", "shop", "db", type="Opaque", data={"p": ""})
    async with manager(api) as volumes:
        with pytest.raises(kind) as caught:
            await volumes.setup(a_pod({"name": "v", **volume}), tmp_path / "uid-1", {})
        assert message in str(caught.value)
        await volumes.teardown(tmp_path / "uid-1")
    assert mounts.below(tmp_path) == []


async def test_sources_are_watched_only_while_used(tmp_path: Path) -> None:
    api = FakeApi()
    api.put("configmaps", "shop", "frozen", immutable=True, data={"k": "v"})
    api.put("configmaps", "shop", "cfg", data={"k": "v"})
    pod = a_pod({"name": "a", "configMap": {"name": "frozen"}}, {"name": "b", "configMap": {"name": "cfg"}})
    async with manager(api) as volumes:
        await volumes.setup(pod, tmp_path / "uid-1", {})
        await until(lambda: api.watches == ["/api/v1/services/", "/api/v1/namespaces/shop/configmaps/cfg"])
        await volumes.teardown(tmp_path / "uid-1")


def test_sub_path_stays_in_its_volume(tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (volume / "file").write_text("content")
    (volume / "inner").mkdir()
    (volume / "good").symlink_to("inner")
    (volume / "evil").symlink_to(outside)
    (volume / "up").symlink_to("../outside")
    (volume / "dangling").symlink_to("../outside/new")
    try:
        assert bind(volume, "file", tmp_path / "t" / "0").read_text() == "content"
        assert bind(volume, "good/deep/er", tmp_path / "t" / "1").is_dir()
        assert (volume / "inner/deep/er").is_dir()
        for index, bad in enumerate(("evil", "up", "evil/x", "up/x", "dangling", "../outside", "/etc", "a/../../b")):
            with pytest.raises((Terminal, Retryable)):
                bind(volume, bad, tmp_path / "t" / f"bad{index}")
        assert list(outside.iterdir()) == []
    finally:
        for point in mounts.below(tmp_path):
            mounts.unmount(point)


def test_a_subpath_is_made_as_the_volume_is(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    os.chown(volume, 0, 4711)
    volume.chmod(0o2777)
    try:
        target = bind(volume, "made/deep", tmp_path / "target/0")
        for each in (volume / "made", volume / "made/deep"):
            info = each.stat()
            assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o2777, 4711), "any user of the pod may write there"
        assert os.path.samestat(target.stat(), (volume / "made/deep").stat())
    finally:
        for point in mounts.below(tmp_path):
            mounts.unmount(point)


def test_a_subpath_follows_what_takes_its_place(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "key").write_text("old")
    try:
        target = bind(volume, "key", tmp_path / "target/0")
        assert bind(volume, "key", target) == target
        assert len(mounts.below(tmp_path / "target")) == 1
        (volume / "new").write_text("new")
        os.replace(volume / "new", volume / "key")
        assert target.read_text() == "old"
        assert bind(volume, "key", target).read_text() == "new", "a restarted container sees the update"
        assert len(mounts.below(tmp_path / "target")) == 1
    finally:
        for point in mounts.below(tmp_path):
            mounts.unmount(point)


def test_a_link_swapped_in_while_a_subpath_is_made_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, secret = tmp_path / "volume", tmp_path / "secret"
    volume.mkdir(mode=0o777)
    secret.mkdir(mode=0o700)
    make = os.mkdir

    def swapped(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        make(path, mode, dir_fd=dir_fd)
        if dir_fd is not None:
            os.rmdir(path, dir_fd=dir_fd)
            os.symlink(secret, path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    with pytest.raises(Terminal, match="leaves its volume"):
        bind(volume, "sub", tmp_path / "target/0")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o700


async def test_a_half_made_empty_dir_is_made_again(tmp_path: Path) -> None:
    pod = a_pod({"name": "scratch", "emptyDir": {}}, securityContext={"fsGroup": 4711})
    (tmp_path / "volumes/.scratch.new").mkdir(parents=True)  # where a crash cut it short
    async with manager(FakeApi()) as volumes:
        paths = await volumes.setup(pod, tmp_path, {})
        info = paths["scratch"].stat()
        assert (stat.S_IMODE(info.st_mode), info.st_gid) == (0o2777, 4711)
        paths["scratch"].chmod(0o700)
        await volumes.setup(pod, tmp_path, {})
        assert stat.S_IMODE(paths["scratch"].stat().st_mode) == 0o700, "a container's own change stays"
        await volumes.teardown(tmp_path)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_an_image_volume_shows_the_layers_and_takes_nothing(tmp_path: Path, count: int) -> None:
    layers = []
    for number in range(count):  # topmost first
        layer = tmp_path / f"layer{number}"
        layer.mkdir()
        (layer / "common").write_text(f"of {number}")
        (layer / f"own{number}").write_text("#!/bin/sh\n")
        (layer / f"own{number}").chmod(0o755)
        layers.append(str(layer))
    pod = a_pod({"name": "art", "image": {"reference": "registry/art:1", "pullPolicy": "Always"}})
    image = Image("sha256:1", "registry/art@sha256:1", tuple(layers))
    pod_dir = tmp_path / "uid-1"
    async with manager(FakeApi()) as volumes:
        paths = await volumes.setup(pod, pod_dir, {"art": image})
        assert await volumes.setup(pod, pod_dir, {"art": image}) == paths
        assert len(mounts.below(pod_dir)) == 1
        assert sorted(os.listdir(paths["art"])) == (["common"] if count else []) + [f"own{n}" for n in range(count)]
        if count:
            assert (paths["art"] / "common").read_text() == "of 0"
            with pytest.raises(PermissionError):
                await asyncio.create_subprocess_exec(paths["art"] / "own0")
        with pytest.raises(OSError, match="Read-only"):
            (paths["art"] / "new").touch()
        await volumes.teardown(pod_dir)
    assert mounts.below(tmp_path) == []
    assert all(os.listdir(layer) for layer in layers)

"""A host whose disk for images is full: what a user reads, what is left of the attempt, and that it heals."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import Retryable, Terminal
from sphere import machines, topology
from sphere.images import load
from sphere.layout import Layout
from spherelet import node_status
from spherelet.images.collector import Collector
from spherelet.node import read_health
from tests.support.image_registry import Registry, is_installed, running_registry

pytestmark = [pytest.mark.integration, pytest.mark.skipif(not is_installed(), reason="needs docker-registry")]

REGISTRY = "registry.example"
DISK_MIB = 24
BIG_MIB = 30
SMALL_MIB = 2
NOTES_BYTES = 1 << 20
"""What containerd's own databases may grow by."""
APP = "docker.io/library/app:1"


def part(name: str) -> Any:
    """A sibling that conftest.py has loaded."""
    return sys.modules[name]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Has ``big:1``, larger than the disk, ``small:1``, ``other:1``, and ``swells:1``, larger only when unpacked."""
    with running_registry(tmp_path_factory.mktemp("registry")) as made:
        ballast = {
            "big": os.urandom(BIG_MIB << 20),
            "small": os.urandom(SMALL_MIB << 20),
            "other": os.urandom(SMALL_MIB << 20),
            "swells": bytes(BIG_MIB << 20),
        }
        for name, content in ballast.items():
            image = part("busybox_archive").image(ballast=content)
            made.push(name, image.blobs, image.manifest, "1")
        yield made


@pytest.fixture
def tiny(registry: Registry, conftest: Any) -> Iterator[Path]:
    """The directory of a containerd with a tiny disk."""
    with conftest.running_containerd({REGISTRY: f"http://{registry.address}"}, disk_mib=DISK_MIB) as root:
        yield root


@pytest.fixture
async def host(tiny: Path, conftest: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    monkeypatch.setattr("spherelet.apply.image_backoff_base_s", 0.5)
    async with conftest.running_host(tiny / "containerd.sock", offline=False) as made:
        yield made


def waiting(host: Any, name: str) -> dict[str, Any]:
    statuses = host.api.status(name).get("containerStatuses") or [{"state": {}}]
    found: dict[str, Any] = statuses[0]["state"].get("waiting") or {}
    return found


def images(root: Path) -> list[str]:
    command = ["ctr", "-a", str(root / "containerd.sock"), "-n", "k8s.io", "images", "list", "-q"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.split()


def used(root: Path) -> int:
    disk = os.statvfs(root / "root")
    return (disk.f_blocks - disk.f_bfree) * disk.f_frsize


def fill(path: Path) -> None:
    """A file that takes all the space that is left on its disk."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1 << 16)):
            pass


def digests(root: Path) -> list[list[str]]:
    command = ["ctr", "-a", str(root / "containerd.sock"), "-n", "k8s.io", "images", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.splitlines()
    return [line.split()[:3] for line in lines]


def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


def disk_pressure(disks: list[Path]) -> dict[str, Any]:
    conditions = node_status.conditions(read_health(disks, "", ""), [], 0.0)
    return next(each for each in conditions if each["type"] == "DiskPressure")


async def test_an_image_larger_than_the_disk(host: Any, tiny: Path) -> None:
    w = part("world")
    before = used(tiny)
    image = f"{REGISTRY}/big:1"
    host.api.create(w.pod("big", "sleep", "3600", container={"image": image}))
    await w.eventually(lambda: waiting(host, "big").get("reason") == "ImagePullBackOff")
    message = waiting(host, "big")["message"]
    assert "the host's disk for images is full; remove images or add space, and the pull is tried again" in message
    assert "no space left on device" in message
    events = await w.eventually(lambda: [e for e in host.api.events if e["reason"] == "Failed"])
    assert events[0]["message"].startswith(
        f'Failed to pull image "{image}": the host\'s disk for images is full; remove'
    )
    host.api.delete("big")
    await w.eventually(lambda: not host.loop.records)
    assert images(tiny) == []
    await w.eventually(lambda: used(tiny) < before + NOTES_BYTES, what="the disk is free again")


async def test_a_pod_starts_by_itself_when_there_is_space_again(host: Any, tiny: Path) -> None:
    w = part("world")
    fill(tiny / "root/filler")
    host.api.create(w.pod("small", "sleep", "3600", container={"image": f"{REGISTRY}/small:1"}))
    await w.eventually(lambda: waiting(host, "small").get("reason") == "ImagePullBackOff")
    assert "the host's disk for images is full" in waiting(host, "small")["message"]
    assert images(tiny) == []
    disks = [host.config.state_dir, *await host.loop.ports.images.mount_points()]
    pressure = disk_pressure(disks)
    assert pressure["status"] == "True"
    assert pressure["message"] == f"kubelet has disk pressure: free some space on the disk of {disks[1]}"
    assert disks[1].is_relative_to(tiny)
    (tiny / "root/filler").unlink()
    assert disk_pressure(disks)["status"] == "False"
    await w.eventually(lambda: host.api.status("small")["containerStatuses"][0]["ready"], timeout_s=30)
    assert f"{REGISTRY}/small:1" in images(tiny)
    host.api.delete("small", grace_s=0)
    await w.eventually(lambda: not host.loop.records)


async def test_unused_images_make_room_and_used_ones_stay(host: Any, tiny: Path) -> None:
    w = part("world")

    async def started(name: str, image: str) -> None:
        host.api.create(w.pod(name, "sleep", "3600", container={"image": f"{REGISTRY}/{image}:1"}))
        await w.eventually(
            lambda: (host.api.status(name).get("containerStatuses") or [{"ready": False}])[0]["ready"], timeout_s=30
        )

    await started("past", "small")
    host.api.delete("past", grace_s=0)
    await w.eventually(lambda: not host.loop.records)
    await started("present", "other")
    collector = Collector(host.loop.ports.images, host.loop.clock, host.loop.needed_images)
    assert await collector.collect() == [], "there is room"
    assert await collector.collect(pressed=True) == [], "little of the disk is used"
    fill(tiny / "root/filler")
    before = used(tiny)
    assert len(await collector.collect(pressed=True)) == 1
    assert f"{REGISTRY}/small:1" not in images(tiny)
    assert f"{REGISTRY}/other:1" in images(tiny)
    await w.eventually(lambda: used(tiny) < before - (SMALL_MIB << 20), what="its layers are gone from the disk")
    (tiny / "root/filler").unlink()
    pid = next(iter(host.loop.ports.runtime.running())).pid
    assert len(Path(f"/proc/{pid}/root/ballast").read_bytes()) == SMALL_MIB << 20  # noqa: ASYNC240
    await started("again", "small")
    for name in ("present", "again"):
        host.api.delete(name, grace_s=0)
    await w.eventually(lambda: not host.loop.records)


async def test_a_pull_without_room_asks_for_it(host: Any, tiny: Path) -> None:
    w = part("world")
    collector = Collector(host.loop.ports.images, host.loop.clock, host.loop.needed_images)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(collector.run())
        for name in ("small", "other"):
            await host.loop.ports.images.pull(f"{REGISTRY}/{name}:1")
        fill(tiny / "root/filler")
        with contextlib.suppress(Retryable):
            await host.loop.ports.images.pull(f"{REGISTRY}/big:1")
        await w.eventually(lambda: images(tiny) == [], what="unused images are gone")
        task.cancel()


async def test_what_a_layer_left_that_did_not_fit_is_removed(host: Any, tiny: Path) -> None:
    w = part("world")
    before = used(tiny)
    host.api.create(w.pod("swells", "sleep", "3600", container={"image": f"{REGISTRY}/swells:1"}))
    await w.eventually(lambda: waiting(host, "swells").get("reason") == "ImagePullBackOff", timeout_s=30)
    assert "failed to extract layer" in waiting(host, "swells")["message"]
    assert "the host's disk for images is full" in waiting(host, "swells")["message"]
    host.api.delete("swells")
    await w.eventually(lambda: not host.loop.records)
    assert images(tiny) == []
    await w.eventually(lambda: used(tiny) < before + NOTES_BYTES, what="the disk is free again")


@pytest.fixture
def load_here(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``sphere image load`` with the tiny disk's containerd as that of a host."""

    def enter(layout: Layout, name: str, command: list[str]) -> list[str]:
        return ["env", f"CONTAINERD_ADDRESS={tiny}/containerd.sock", *command]

    monkeypatch.setattr(machines, "enter_argv", enter)
    monkeypatch.setattr(machines, "pid_of", lambda layout, name: 1)
    return lambda archive: load.load(Layout(tiny), archive, (topology.host(1),))


def archive(tmp_path: Path, ballast: bytes) -> Path:
    path = tmp_path / "app.tar"
    part("busybox_archive").save(path, APP, part("busybox_archive").image(ballast=ballast))
    return path


@pytest.mark.parametrize("ballast", [os.urandom(BIG_MIB << 20), bytes(BIG_MIB << 20)], ids=["packed", "unpacked"])
def test_load_onto_a_full_disk(tiny: Path, tmp_path: Path, load_here: Any, ballast: bytes) -> None:
    before = used(tiny)
    path = archive(tmp_path, ballast)
    with pytest.raises(Terminal) as raised:
        load_here(path)
    words = str(raised.value)
    assert words.startswith(
        f"host-1 could not import {path}, and kept nothing of it: its disk for images is full; free"
    )
    assert "images rm NAME` removes an image), and load it again: " in words
    assert "no space left on device" in words
    assert images(tiny) == []
    until(lambda: used(tiny) < before + NOTES_BYTES)
    load_here(archive(tmp_path, b"little"))
    assert APP in images(tiny)


def test_a_failed_load_leaves_the_image_that_had_the_name(tiny: Path, tmp_path: Path, load_here: Any) -> None:
    load_here(archive(tmp_path, b"old"))
    until(lambda: len(images(tiny)) == 2)
    before = digests(tiny)
    with pytest.raises(Terminal, match="kept nothing of it"):
        load_here(archive(tmp_path, bytes(BIG_MIB << 20)))
    assert digests(tiny) == before

"""Put an image archive onto the hosts' containerds."""

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from common.errors import Terminal
from sphere import machines
from sphere.commands import run, succeeds
from sphere.images import archive
from sphere.layout import Layout
from sphere.topology import Machine

NAMESPACE = "k8s.io"
SNAPSHOTTER = "overlayfs"
SWEEP_KEY = "sphere-sweep"
SWEEP_DEADLINE_S = 3.0
DISK_FULL = "no space left on device"
IMPORT_TIMEOUT_S = 600.0
CONTAINERD_DEADLINE_S = 20.0
SPACE_FACTOR = 3
"""An import keeps the archive's layers, compressed and unpacked."""
SPACE_RESERVE_BYTES = 256 << 20


def load(layout: Layout, path: Path, hosts: tuple[Machine, ...]) -> tuple[str, ...]:
    """Import ``path`` on all ``hosts`` at the same time. Returns the images' names, as pods may use them.

    Raises ``Terminal`` with cause and cure.
    """
    names = archive.image_names(path)
    _check_space(layout, path, len(hosts))
    off = [host.name for host in hosts if machines.pid_of(layout, host.name) is None]
    if off:
        raise Terminal(f"{', '.join(off)} is off; `sphere host start {off[0]}` first")
    machines.each(hosts, lambda host: _import(layout, host, path, names))
    return tuple(archive.whole_name(name) for name in names)


def _check_space(layout: Layout, path: Path, count: int) -> None:
    space = os.statvfs(layout.run)
    free = space.f_bavail * space.f_frsize
    needed = path.stat().st_size * SPACE_FACTOR * count + SPACE_RESERVE_BYTES
    if free < needed:
        raise Terminal(
            f"{layout.run} has {free >> 20} MiB free, but {path.name} on {count} hosts may need {needed >> 20} MiB; "
            "free some space, or keep the cluster elsewhere (SPHERE_RUN)"
        )


def wait_containerd(layout: Layout, host: Machine) -> None:
    """Until the host's containerd answers."""
    deadline = time.monotonic() + CONTAINERD_DEADLINE_S
    while not succeeds(machines.enter_argv(layout, host.name, ["ctr", "version"])):
        if time.monotonic() > deadline:
            log = layout.logs(host.name) / "containerd.log"
            raise Terminal(f"containerd of {host.name} does not answer; the end of {log}:\n{machines.tail(log)}")
        time.sleep(0.05)


def held(layout: Layout, host: Machine) -> set[str]:
    """Names of the images that the host has."""
    return set(run(machines.enter_argv(layout, host.name, _ctr("images", "list", "-q"))).split())


def lacking(layout: Layout, hosts: tuple[Machine, ...], name: str) -> tuple[Machine, ...]:
    """Those of ``hosts`` without the image, once their containerds answer."""
    machines.each(hosts, lambda host: wait_containerd(layout, host))
    return tuple(host for host in hosts if name not in held(layout, host))


def _import(layout: Layout, host: Machine, path: Path, names: tuple[str, ...]) -> None:
    before = _digests(layout, host)
    command = _ctr("images", "import", "--snapshotter", SNAPSHOTTER, "-")
    # Through standard input: inside the machine the path may be hidden.
    with path.open("rb") as content:
        try:
            done = subprocess.run(
                machines.enter_argv(layout, host.name, command),
                stdin=content,
                capture_output=True,
                text=True,
                timeout=IMPORT_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Terminal(
                f"{host.name} did not finish importing {path} within {IMPORT_TIMEOUT_S:.0f} s; its disk may hang: see "
                f"{layout.logs(host.name) / 'containerd.log'}"
            ) from None
    if done.returncode == 0:
        for name in names:
            if (whole := archive.whole_name(name)) != name:
                run(machines.enter_argv(layout, host.name, _ctr("images", "tag", "--force", name, whole)))
        return
    words = done.stderr.strip().rpartition("ctr: ")[2]
    kept = _undo(layout, host, before)
    if DISK_FULL in words:
        words = (
            f"its disk for images is full; free some space in {layout.state(host.name)} "
            f"(`sphere host exec {host.name} -- ctr -n {NAMESPACE} images rm NAME` removes an image), "
            f"and load it again: {words}"
        )
    raise Terminal(f"{host.name} could not import {path}, {kept}: {words}")


def _undo(layout: Layout, host: Machine, before: Mapping[str, str]) -> str:
    """Take back a failed import, which stores names before it unpacks layers. Returns what came of it."""

    def ctr(*arguments: str) -> bool:
        return succeeds(machines.enter_argv(layout, host.name, _ctr(*arguments)))

    try:
        after = _digests(layout, host)
        by_digest = {digest: name for name, digest in after.items() if name.startswith("sha256:")}
        for name, digest in before.items():
            if after.get(name) != digest and digest in by_digest:
                ctr("images", "tag", "--force", by_digest[digest], name)
        added = sorted(set(_digests(layout, host)) - set(before))
        if added:
            ctr("images", "rm", "--sync", *added)
        # containerd looks for half-made layers after the removal of a snapshot only, and a full disk may have kept it
        # from removing them; so one is made, to be removed, as soon as there is room for it.
        deadline = time.monotonic() + SWEEP_DEADLINE_S
        while not ctr("snapshots", "--snapshotter", SNAPSHOTTER, "prepare", SWEEP_KEY):
            if time.monotonic() > deadline:
                break
            ctr("snapshots", "--snapshotter", SNAPSHOTTER, "rm", SWEEP_KEY)
            time.sleep(0.1)
        ctr("snapshots", "--snapshotter", SNAPSHOTTER, "rm", SWEEP_KEY)
        left = _digests(layout, host) != before
    except Terminal as err:
        return f"and what it left could not be looked for ({err})"
    return "and left part of it" if left else "and kept nothing of it"


def _digests(layout: Layout, host: Machine) -> dict[str, str]:
    """Image names that the host has, and the digests that they stand for."""
    lines = run(machines.enter_argv(layout, host.name, _ctr("images", "list"))).splitlines()[1:]
    return {words[0]: words[2] for line in lines if len(words := line.split()) > 2}


def _ctr(*arguments: str) -> list[str]:
    return ["ctr", "-n", NAMESPACE, *arguments]

"""Put an image archive onto the hosts' containerds."""

import os
import subprocess
import time
from pathlib import Path

from common.errors import Terminal
from sphere import machines
from sphere.commands import run, succeeds
from sphere.images import archive
from sphere.layout import Layout
from sphere.topology import Machine

NAMESPACE = "k8s.io"
IMPORT_TIMEOUT_S = 600.0
CONTAINERD_DEADLINE_S = 20.0
SPACE_FACTOR = 3
"""An import keeps the archive's layers, compressed and unpacked."""
SPACE_RESERVE_BYTES = 256 << 20


def load(layout: Layout, path: Path, hosts: tuple[Machine, ...]) -> tuple[str, ...]:
    """Import ``path`` on all ``hosts`` at the same time. Returns the image names. Raises ``Terminal`` with the cure."""
    names = archive.image_names(path)
    _check_space(layout, path, len(hosts))
    off = [host.name for host in hosts if machines.pid_of(layout, host.name) is None]
    if off:
        raise Terminal(f"{', '.join(off)} is off; `sphere host start {off[0]}` first")
    machines.each(hosts, lambda host: _import(layout, host, path))
    return names


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
    words = run(machines.enter_argv(layout, host.name, ["ctr", "-n", NAMESPACE, "images", "list", "-q"]))
    return set(words.split())


def lacking(layout: Layout, hosts: tuple[Machine, ...], name: str) -> tuple[Machine, ...]:
    """Those of ``hosts`` without the image, once their containerds answer."""
    machines.each(hosts, lambda host: wait_containerd(layout, host))
    return tuple(host for host in hosts if name not in held(layout, host))


def _import(layout: Layout, host: Machine, path: Path) -> None:
    command = ["ctr", "-n", NAMESPACE, "images", "import", "--snapshotter", "overlayfs", "-"]
    # Through standard input: inside the machine the path may be hidden.
    with path.open("rb") as content:
        done = subprocess.run(
            machines.enter_argv(layout, host.name, command),
            stdin=content,
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    if done.returncode != 0:
        raise Terminal(f"{host.name} could not import {path}: {done.stderr.strip()}")

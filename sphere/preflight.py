"""Can this box carry a cluster? Each missing thing is named together with its cure."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from common.errors import Terminal
from sphere import cgroups
from sphere.commands import succeeds

TOOLS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "nft": "nftables",
    "etcd": "etcd-server",
    "mosquitto": "mosquitto",
    "containerd": "containerd",
    "ctr": "containerd",
    "conmon": "conmon",
    "crun": "crun",
    "unbound": "unbound",
    "unbound-control": "unbound",
    "conntrack": "conntrack",
}
"""Command -> Debian package that has it."""
ROOM_BYTES_MIN = 1 << 30
MONITORING_TOOLS = {"prometheus": "prometheus"}


def require_root() -> None:
    """A cluster's namespaces, sockets and keys are the administrator's."""
    if os.geteuid() != 0:
        raise Terminal("this needs root: a cluster's namespaces, sockets and keys are root's; run it again with sudo")


def check(*, monitoring: bool) -> None:
    """Raise ``Terminal`` listing everything that is missing, not only the first thing."""
    require_root()
    # The kernel is asked by means of the tools, so these come first.
    problems = _missing_tools(monitoring) or [message for test, message in _FEATURES if not test()]
    if problems:
        raise Terminal("this machine cannot carry a cluster:\n  - " + "\n  - ".join(problems))


def check_room(directory: Path) -> None:
    """Raise ``Terminal`` when the disk of ``directory``, which need not exist yet, has no room for a new cluster."""
    place = next(one for one in (directory, *directory.parents) if one.exists())
    free = shutil.disk_usage(place).free
    if free < ROOM_BYTES_MIN:
        raise Terminal(
            f"the disk of {place} has {free >> 20} MiB free; a cluster needs {ROOM_BYTES_MIN >> 20} MiB for etcd and "
            "images (with less its hosts report DiskPressure and take no pods); free some space, or keep the cluster "
            "on another disk (SPHERE_RUN=DIRECTORY)"
        )


def check_port(port: int) -> None:
    """Raise ``Terminal`` when somebody listens where the API has to."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError as err:
            raise Terminal(
                f"cannot listen on 127.0.0.1:{port}, the address of the API: {err.strerror}; stop what listens there "
                f"(`ss -ltnp 'sport = :{port}'` names it)"
            ) from err


def _missing_tools(monitoring: bool) -> list[str]:
    wanted = TOOLS | (MONITORING_TOOLS if monitoring else {})
    missing = sorted({package for tool, package in wanted.items() if shutil.which(tool) is None})
    if not missing:
        return []
    return [f"missing programs; `make up` installs them, or: apt-get install {' '.join(missing)}"]


def _in_new_netns(*command: str) -> bool:
    return succeeds(["unshare", "--net", "--", *command], timeout_s=20)


def _has_overlayfs() -> bool:
    with open("/proc/filesystems", encoding="ascii") as known:
        if any(line.split()[-1] == "overlay" for line in known):
            return True
    return shutil.which("modprobe") is not None and succeeds(["modprobe", "overlay"])


def _has_cgroups() -> bool:
    wanted = {"memory", "cpu", "pids"}
    if cgroups.is_v2():
        return wanted <= set((cgroups.MOUNT / "cgroup.controllers").read_text().split())
    return all((cgroups.MOUNT / name).is_dir() for name in wanted)


_FEATURES: tuple[tuple[Callable[[], bool], str], ...] = (
    (
        lambda: succeeds(["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--", "true"]),
        "the kernel or a sandbox forbids new network, mount, PID or UTS namespaces; run on a host or virtual machine, "
        "or in a container with CAP_SYS_ADMIN (for example podman run --privileged)",
    ),
    (
        lambda: _in_new_netns("ip", "link", "add", "probe0", "type", "vxlan", "external", "dstport", "4789"),
        "no VXLAN devices with metadata; load module vxlan (modprobe vxlan) or use a kernel with CONFIG_VXLAN",
    ),
    (
        lambda: _in_new_netns("ip", "link", "add", "probe0", "type", "bridge"),
        "no bridge devices; load module bridge (modprobe bridge) or use a kernel with CONFIG_BRIDGE",
    ),
    (
        lambda: _in_new_netns("nft", "add table inet t; add map inet t m { type mark : verdict; }"),
        "nftables does not work; load module nf_tables (modprobe nf_tables) or use a kernel with CONFIG_NF_TABLES_INET",
    ),
    (_has_overlayfs, "no overlayfs; load module overlay (modprobe overlay) or use a kernel with CONFIG_OVERLAY_FS"),
    (
        _has_cgroups,
        "cgroup controllers memory, cpu and pids are not all mounted below /sys/fs/cgroup; boot with them enabled "
        "(cgroup_enable=memory) or mount them",
    ),
)

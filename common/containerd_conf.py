"""Configuration of containerd as spherelet wants it: images and snapshots, nothing that runs containers. Pure.

Shared by the one-machine cluster and by the hosts that Ansible sets up.
"""

from collections.abc import Iterable
from pathlib import Path

UNUSED_PLUGINS = (
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.tracing",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.native",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
)
"""Each costs memory or start time, and none is asked for anything."""


def render(
    *,
    root: Path,
    state: Path,
    socket: Path,
    registry_hosts: Path | None = None,
    unused: Iterable[str] = UNUSED_PLUGINS,
) -> str:
    """``config.toml`` (version 2) of containerd 1.6 or later.

    ``root`` keeps images, ``state`` is lost at reboot, ``registry_hosts`` is a directory of ``hosts.toml`` files for
    mirrors and private registries. The sandbox image is never used: spherelet pins namespaces instead.
    """
    disabled = ", ".join(f'"{name}"' for name in unused)
    lines = [
        "version = 2",
        f'root = "{root}"',
        f'state = "{state}"',
        f"disabled_plugins = [{disabled}]",
        "",
        "[grpc]",
        f'  address = "{socket}"',
        "",
        "[debug]",
        '  level = "warn"',
        "",
        '[plugins."io.containerd.grpc.v1.cri"]',
        "  disable_tcp_service = true",
        '  stream_server_address = "127.0.0.1"',
        '  sandbox_image = "localhost/unused:none"',
        '  [plugins."io.containerd.grpc.v1.cri".containerd]',
        '    snapshotter = "overlayfs"',
        "    disable_snapshot_annotations = true",
        '  [plugins."io.containerd.grpc.v1.cri".cni]',
        f'    conf_dir = "{state}/no-cni"',
    ]
    if registry_hosts is not None:
        lines += [
            '  [plugins."io.containerd.grpc.v1.cri".registry]',
            f'    config_path = "{registry_hosts}"',
        ]
    return "\n".join(lines) + "\n"

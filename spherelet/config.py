"""Configuration of spherelet, and its limits in one place. Units come last in names."""

from pathlib import Path

from msgspec import field

from common.settings import Settings, TlsFiles

pods_max = 250
workers_max = 16
"""Pods planned at the same time."""
pulls_max = 4
"""Images pulled at the same time."""
network_timeout_s = 20.0
drain_timeout_s = 10.0
kill_timeout_s = 10.0
"""After SIGKILL a container must be gone within this, else it is reported as stuck and tried again."""
crash_backoff_base_s = 10.0
crash_backoff_cap_s = 300.0
crash_backoff_reset_s = 600.0
retry_base_s = 1.0
retry_cap_s = 120.0
image_backoff_base_s = 10.0
image_backoff_cap_s = 300.0
audit_period_s = 60.0
"""The slow safety net: everything is looked at again, whatever events said."""
termination_message_bytes_max = 4096

if not crash_backoff_base_s < crash_backoff_cap_s < crash_backoff_reset_s:
    raise AssertionError("the crash backoff must be able to grow, and must be forgotten only after it has ended")


class Api(Settings, frozen=True, kw_only=True):
    """How to reach the API: ``tls`` is the identity ``system:node:<host>``."""

    url: str
    tls: TlsFiles


class Server(Settings, frozen=True, kw_only=True):
    """Where spherelet serves logs, exec, metrics: ``address:port``."""

    listen: str
    tls: TlsFiles


class Containerd(Settings, frozen=True, kw_only=True):
    """containerd's socket, for images and snapshots only."""

    socket: Path
    namespace: str = "k8s.io"
    snapshotter: str = "overlayfs"
    offline: bool = False
    """No registry can be reached: pull policy Always means IfNotPresent for an image that is here."""


class Runtime(Settings, frozen=True, kw_only=True):
    """conmon and the OCI runtimes; ``handlers`` maps RuntimeClass handler names to binaries."""

    conmon: Path = Path("/usr/bin/conmon")
    default: str = "crun"
    handlers: dict[str, Path] = field(
        default_factory=lambda: {"crun": Path("/usr/bin/crun"), "runc": Path("/usr/sbin/runc")}
    )


class Dns(Settings, frozen=True, kw_only=True):
    """What pods with ``dnsPolicy: ClusterFirst`` resolve with."""

    address: str = "10.96.0.10"
    domain: str = "cluster.local"


class Capacity(Settings, frozen=True, kw_only=True):
    """Overrides of what the node reports; quantities as Kubernetes writes them."""

    cpu: str | None = None
    memory: str | None = None
    pods: int = pods_max
    ephemeral_storage: str | None = None


class Config(Settings, frozen=True, kw_only=True):
    """The whole file. ``address`` is the host's underlay address."""

    host: str
    address: str
    state_dir: Path
    api: Api
    server: Server
    containerd: Containerd
    runtime: Runtime = Runtime()
    cgroup_parent: str = "/sphere"
    nsx_socket: Path
    dns: Dns = Dns()
    capacity: Capacity = Capacity()
    labels: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    """Extra labels of the Node object."""
    volumes_dir: Path | None = None
    """Where volumes made for claims have their directories; ``persistent`` below ``state_dir`` if not given."""

    @property
    def persistent_dir(self) -> Path:
        """Absolute path of ``volumes_dir``."""
        return self.volumes_dir or self.state_dir / "persistent"

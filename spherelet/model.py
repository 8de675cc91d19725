"""The vocabulary of spherelet: what is wanted, what is seen, what may be done. Read this first. Pure.

``PodView`` is a read-only view of a pod object; ``Observed`` is a snapshot of what is on this host; ``Action`` is the
closed union of everything that ``plan`` may ask for and ``apply`` can do.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

Object = dict[str, Any]
"""A decoded Kubernetes object, or a part of one."""


class Role(StrEnum):
    """What a container is for; it decides order and restarts."""

    INIT = "init"
    SIDECAR = "sidecar"
    """An init container with ``restartPolicy: Always``."""
    MAIN = "main"
    EPHEMERAL = "ephemeral"
    """Added to a running pod to look into it; never restarted, and without a say in the pod's fate."""
    PAUSE = "pause"
    """Ours: the first process of the PID namespace that the containers of a pod share."""


PAUSE = "_pause"
"""Name of the container of that role: none that a user can give."""


@dataclass(frozen=True, slots=True)
class ContainerView:
    """One container of a pod spec."""

    role: Role
    spec: Object

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def image(self) -> str:
        return str(self.spec.get("image") or "")

    @property
    def pull_policy(self) -> str:
        """``Always``, ``IfNotPresent`` or ``Never``; Kubernetes' default by tag when absent."""
        given = self.spec.get("imagePullPolicy")
        if given:
            return str(given)
        last = self.image.rsplit("/", 1)[-1]
        return "Always" if "@" not in last and (":" not in last or last.endswith(":latest")) else "IfNotPresent"

    @property
    def spec_hash(self) -> str:
        """Changes when a container must be made anew (its image)."""
        return hashlib.sha256(self.image.encode()).hexdigest()[:16]

    @property
    def resources(self) -> str:
        """CPU and memory, as JSON of ``limits`` and ``requests``: what may change while the container runs."""
        given = self.spec.get("resources") or {}
        kept = {
            kind: {name: str(each) for name, each in (given.get(kind) or {}).items() if name in ("cpu", "memory")}
            for kind in ("limits", "requests")
        }
        return json.dumps(kept, sort_keys=True)

    @property
    def shows_address(self) -> bool:
        """Whether the environment has the pod's address in it: it must be known before the container is made."""
        sources = (each.get("valueFrom") or {} for each in self.spec.get("env") or ())
        paths = ((each.get("fieldRef") or {}).get("fieldPath") for each in sources)
        return any(path in ("status.podIP", "status.podIPs") for path in paths)


@dataclass(frozen=True, slots=True)
class PodView:
    """A read-only view of a v1 Pod. ``body`` is never changed."""

    body: Object

    @property
    def metadata(self) -> Object:
        return self.body["metadata"]  # type: ignore[no-any-return]

    @property
    def spec(self) -> Object:
        return self.body["spec"]  # type: ignore[no-any-return]

    @property
    def status(self) -> Object:
        return self.body.get("status") or {}

    @property
    def uid(self) -> str:
        return str(self.metadata["uid"])

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", "default"))

    @property
    def name(self) -> str:
        return str(self.metadata["name"])

    @property
    def key(self) -> str:
        """``namespace/name``, for logs."""
        return f"{self.namespace}/{self.name}"

    @property
    def deleting(self) -> bool:
        return "deletionTimestamp" in self.metadata

    @property
    def grace_s(self) -> float:
        """Seconds between SIGTERM and SIGKILL: of the deletion if there is one, else of the spec."""
        given = self.metadata.get("deletionGracePeriodSeconds")
        if given is None:
            given = self.spec.get("terminationGracePeriodSeconds", 30)
        return float(given)

    @property
    def restart_policy(self) -> str:
        return str(self.spec.get("restartPolicy") or "Always")

    @property
    def host_network(self) -> bool:
        return bool(self.spec.get("hostNetwork"))

    @property
    def init(self) -> tuple[ContainerView, ...]:
        """Init containers and sidecars, in their order."""
        return tuple(
            ContainerView(Role.SIDECAR if each.get("restartPolicy") == "Always" else Role.INIT, each)
            for each in self.spec.get("initContainers") or ()
        )

    @property
    def main(self) -> tuple[ContainerView, ...]:
        return tuple(ContainerView(Role.MAIN, each) for each in self.spec.get("containers") or ())

    @property
    def ephemeral(self) -> tuple[ContainerView, ...]:
        return tuple(ContainerView(Role.EPHEMERAL, each) for each in self.spec.get("ephemeralContainers") or ())

    @property
    def pause(self) -> ContainerView | None:
        """The container that holds the PID namespace, if the pod's containers share one."""
        shared = self.spec.get("shareProcessNamespace") and not self.spec.get("hostPID")
        return ContainerView(Role.PAUSE, {"name": PAUSE, "securityContext": _PAUSE_CONTEXT}) if shared else None

    @property
    def containers(self) -> tuple[ContainerView, ...]:
        """All containers that the pod's author wrote: init first."""
        return self.init + self.main + self.ephemeral

    def container(self, name: str) -> ContainerView | None:
        if name == PAUSE:
            return self.pause
        return next((each for each in self.containers if each.name == name), None)


RESIZE_ERROR = "ResizeError"
"""Reason of the failure, and of the event, when a running container cannot be given other resources."""

_PAUSE_CONTEXT: Object = {
    "runAsUser": 65535,
    "runAsGroup": 65535,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, slots=True)
class Exit:
    """How a container ended."""

    code: int
    """Exit status; 128 + signal after a signal, as Kubernetes reports it."""
    finished_at: float
    reason: str
    """``Completed``, ``Error``, ``OOMKilled``, ``ContainerStatusUnknown``, ``StartError``, ..."""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """One attempt of one container on this host, as its directory and the kernel say."""

    pod_uid: str
    name: str
    attempt: int
    id: str
    """64 hexadecimal digits; the id that the OCI runtime knows."""
    directory: Path
    """``<state_dir>/pods/<uid>/containers/<name>/<attempt>``."""
    image: str
    image_id: str
    handler: str
    """Name of the runtime handler in the config (``crun``)."""
    created_at: float
    pid: int = 0
    """First process of the container in spherelet's PID namespace; 0 before it exists and after it is gone."""
    conmon_pid: int = 0
    started_at: float = 0.0
    """0 until the runtime's ``start`` returned."""
    exit: Exit | None = None
    stop_signal: str = "SIGTERM"
    backoff_s: float = 0.0
    """How long after its end the next attempt must wait."""
    reaped: bool = False
    """Runtime state, cgroup and root file system are gone; the log and how it ended remain."""
    spec_hash: str = ""
    """Of the container spec that it was made from."""
    resources: str = ""
    """``ContainerView.resources`` that it has now; empty if that is not known."""
    cgroup: str = ""
    """Cgroup path below the root of each hierarchy."""
    netns: Path | None = None
    """Pinned network namespace; None with hostNetwork."""
    epoch: int = 0
    """The ``Sandbox.epoch`` that it was made in."""

    @property
    def running(self) -> bool:
        return self.started_at > 0 and self.exit is None

    @property
    def bundle(self) -> Path:
        """OCI bundle: ``config.json``, ``rootfs``."""
        return self.directory

    @property
    def log_path(self) -> Path:
        """CRI log format: ``<RFC3339Nano> stdout|stderr F|P <line>``."""
        return self.directory / "log"

    @property
    def attach_socket(self) -> Path:
        """conmon's SOCK_SEQPACKET attach socket; its path may exceed 108 bytes: open it by ``/proc/self/fd``."""
        return self.directory / "attach"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here, unpacked."""

    id: str
    """Digest of its config: ``sha256:...``."""
    reference: str
    """``repository@sha256:...`` where known, else the id: what ``imageID`` shows."""
    layers: tuple[str, ...]
    """Directories of its layers, topmost first: overlayfs ``lowerdir``."""
    config: Object = field(default_factory=dict)
    """OCI image config: ``Entrypoint``, ``Cmd``, ``Env``, ``User``, ``WorkingDir``, ``StopSignal``."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that failed and will be tried again at ``retry_at`` (seconds since the epoch)."""

    reason: str
    message: str
    retry_at: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The pinned namespaces of a pod."""

    ready: bool
    """Namespaces exist. False while they are being made: something may be there to release."""
    address: str = ""
    """Pod address (the host's with hostNetwork); empty until the network agent has told it."""
    cleared: bool = False
    """The network agent let the pod talk: containers may start."""
    created_at: float = 0.0
    epoch: int = 0
    """Counts how often it had to be made anew below containers that had run (the host was restarted)."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What this host has of one pod, at one moment."""

    sandbox: Sandbox | None = None
    sandbox_failure: Failure | None = None
    network_failure: Failure | None = None
    volumes: Mapping[str, Path] | None = None
    volumes_failure: Failure | None = None
    images: Mapping[str, Image] = field(default_factory=dict)
    """By container name."""
    image_failures: Mapping[str, Failure] = field(default_factory=dict)
    """By container name."""
    containers: Mapping[str, tuple[ContainerState, ...]] = field(default_factory=dict)
    """Attempts by container name, oldest first."""
    container_failures: Mapping[str, Failure] = field(default_factory=dict)
    """Could not be created or started, by container name."""
    probes: Mapping[tuple[str, str], bool] = field(default_factory=dict)
    """Last verdict by (container id, kind): ``startup``, ``readiness``, ``liveness``. Absent = no verdict yet."""
    hooks_pending: frozenset[str] = frozenset()
    """Containers whose postStart hook has not returned yet."""
    busy: frozenset[str] = frozenset()
    """Keys of the actions that are running now."""
    drained: bool = False
    """Load balancers have forgotten the pod, or need not."""
    on_disk: bool = False
    """The pod's state directory exists."""
    grace_s: float = 30.0
    """Grace of the pod as last seen, for when the API has it no more."""
    redefined_at: float = 0.0
    """When the API was last seen to change an image of the pod."""

    def last(self, name: str) -> ContainerState | None:
        """The newest attempt of container ``name``."""
        attempts = self.containers.get(name)
        return attempts[-1] if attempts else None


@dataclass(frozen=True, slots=True)
class PullImage:
    """Legal when the container is wanted and its image is not known to be here."""

    container: str
    image: str
    policy: str

    @property
    def key(self) -> str:
        return f"pull:{self.container}"


@dataclass(frozen=True, slots=True)
class PrepareSandbox:
    """Create and pin the pod's namespaces. Legal without a sandbox."""

    key: str = "sandbox"


@dataclass(frozen=True, slots=True)
class AddNetwork:
    """Have the network agent make the interface, and wait until it has cleared the pod to talk.

    Legal when the sandbox is not cleared.
    """

    key: str = "network"


@dataclass(frozen=True, slots=True)
class SetupVolumes:
    """Legal when volumes are not set up."""

    key: str = "volumes"


@dataclass(frozen=True, slots=True)
class CreateContainer:
    """Create the container, stopped before its first instruction.

    Legal when namespaces, image and volumes are there, and the address if the environment shows it.
    """

    container: str
    attempt: int
    backoff_s: float = 0.0

    @property
    def key(self) -> str:
        return f"container:{self.container}"


@dataclass(frozen=True, slots=True)
class StartContainer:
    """Let a created container run, then its postStart hook. Legal when the network is cleared."""

    container: str
    attempt: int

    @property
    def key(self) -> str:
        return f"container:{self.container}"


@dataclass(frozen=True, slots=True)
class StopContainer:
    """preStop, stop signal, wait ``grace_s``, SIGKILL. Legal while the container runs."""

    container: str
    attempt: int
    grace_s: float
    reason: str
    """Why, for the event; empty for a plain deletion."""

    @property
    def key(self) -> str:
        return f"container:{self.container}"


@dataclass(frozen=True, slots=True)
class ResizeContainer:
    """Give a running container the CPU and memory that its spec has now. Legal while it runs."""

    container: str
    attempt: int

    @property
    def key(self) -> str:
        return f"container:{self.container}"


@dataclass(frozen=True, slots=True)
class ReapContainer:
    """Free what an ended attempt still holds: runtime state, cgroup, root file system. Legal once it has ended."""

    container: str
    attempt: int

    @property
    def key(self) -> str:
        return f"container:{self.container}"


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Forget one reaped attempt: its directory and log. Legal once a newer one exists, or the pod goes."""

    container: str
    attempt: int

    @property
    def key(self) -> str:
        return f"remove:{self.container}:{self.attempt}"


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait (bounded) until load balancers have forgotten the pod. Legal when the pod ends, before any stop."""

    key: str = "drain"


@dataclass(frozen=True, slots=True)
class Abandon:
    """Cancel running actions that no longer make sense (a pull for a deleted pod)."""

    keys: tuple[str, ...]
    key: str = "abandon"


@dataclass(frozen=True, slots=True)
class ReleaseSandbox:
    """Remove network, namespaces, volumes, cgroups; logs stay. Legal once every container is reaped."""

    key: str = "sandbox"


@dataclass(frozen=True, slots=True)
class RemovePod:
    """Remove the pod's directory. Legal when the pod is wanted no more and the sandbox is released."""

    key: str = "remove"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before ``seconds`` have passed."""

    seconds: float
    key: str = "wait"


Action = (
    PullImage
    | PrepareSandbox
    | AddNetwork
    | SetupVolumes
    | CreateContainer
    | StartContainer
    | StopContainer
    | ResizeContainer
    | ReapContainer
    | RemoveContainer
    | Drain
    | Abandon
    | ReleaseSandbox
    | RemovePod
    | Wait
)

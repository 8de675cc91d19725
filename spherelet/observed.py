"""What this host has of each pod: ``Record`` (mutable, ours) and the snapshot of it that plans are made from.

A record is rebuilt from ``<state_dir>/pods/<uid>`` after a restart: ``pod.json`` (the pod as last seen, so that it can
be stopped without the API) and ``sandbox.json``. Containers come from ``Runtime``.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from spherelet.model import Failure, Image, Object, Observed, PodView, Sandbox
from spherelet.runtime.client import Runtime
from spherelet.runtime.state import read_json, write_json
from spherelet.seams import Sandboxes

CONFIG_ERROR = "CreateContainerConfigError"
"""Reason of the failure when what a container refers to is not there, or cannot be."""


@dataclass(slots=True)
class Record:
    """Everything remembered about one pod between two plans."""

    uid: str
    directory: Path
    pod: Object
    """As last seen in the API, or read back."""
    wanted: bool = True
    """The API has it, as far as we know."""
    sandbox: Sandbox | None = None
    sandbox_failure: Failure | None = None
    network_failure: Failure | None = None
    volumes: Mapping[str, Path] | None = None
    volumes_failure: Failure | None = None
    images: dict[str, Image] = field(default_factory=dict)
    image_failures: dict[str, Failure] = field(default_factory=dict)
    container_failures: dict[str, Failure] = field(default_factory=dict)
    probes: dict[tuple[str, str], bool] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """Termination messages by container id."""
    hooks_pending: set[str] = field(default_factory=set)
    busy: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    drained: bool = False
    on_disk: bool = False
    # What the loop needs to report.
    seen_at: float = 0.0
    reported: Object | None = None
    """Status that the API accepted last."""
    reported_revision: int = 0
    """The pod's resourceVersion with that status."""
    changed_at: float = 0.0
    """When the status began to differ from ``reported``; 0 while it does not."""
    ready_counted: bool = False
    redefined_at: float = 0.0
    """When the API was last seen to change an image of the pod."""

    @property
    def view(self) -> PodView:
        return PodView(self.pod)

    @property
    def namespaces_dir(self) -> Path:
        return self.directory / "ns"

    @property
    def containers_dir(self) -> Path:
        return self.directory / "containers"

    def save_pod(self) -> None:
        """Write ``pod.json``, making the pod's directory."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.containers_dir.mkdir(mode=0o700, exist_ok=True)
        self.on_disk = True
        write_json(self.directory / "pod.json", self.pod)

    def save_sandbox(self, sandbox: Sandbox) -> None:
        """Remember the sandbox here and in ``sandbox.json``."""
        self.sandbox = sandbox
        write_json(
            self.directory / "sandbox.json",
            {
                "ready": sandbox.ready,
                "address": sandbox.address,
                "cleared": sandbox.cleared,
                "createdAt": sandbox.created_at,
                "epoch": sandbox.epoch,
            },
        )

    def retry_configuration(self, now: float) -> None:
        """What a container refers to has changed: what failed for want of it is tried at once."""
        for name, failed in self.container_failures.items():
            if failed.reason == CONFIG_ERROR:
                self.container_failures[name] = replace(failed, retry_at=now)

    def drop_sandbox(self) -> None:
        """Forget the sandbox."""
        self.sandbox = None
        (self.directory / "sandbox.json").unlink(missing_ok=True)


def snapshot(record: Record, runtime: Runtime) -> Observed:
    """What the plan may see of ``record`` now."""
    return Observed(
        sandbox=record.sandbox,
        sandbox_failure=record.sandbox_failure,
        network_failure=record.network_failure,
        volumes=record.volumes,
        volumes_failure=record.volumes_failure,
        images=dict(record.images),
        image_failures=dict(record.image_failures),
        containers={name: states for name, states in runtime.attempts(record.uid).items() if states},
        container_failures=dict(record.container_failures),
        probes=dict(record.probes),
        hooks_pending=frozenset(record.hooks_pending),
        busy=frozenset(record.busy),
        drained=record.drained,
        on_disk=record.on_disk,
        grace_s=record.view.grace_s,
        redefined_at=record.redefined_at,
    )


def read_back(pods_dir: Path, runtime: Runtime, sandboxes: Sandboxes) -> dict[str, Record]:
    """Records of every pod that has a directory, with their containers adopted. Pods are not yet known to be wanted.

    A directory without a readable ``pod.json`` is half-made or damaged: it gets a nameless record, so that whatever it
    holds is stopped and removed once the API has been heard.
    """
    found: dict[str, Record] = {}
    if not pods_dir.is_dir():
        return found
    for directory in sorted(pods_dir.iterdir()):
        if not directory.is_dir():
            continue
        uid = directory.name
        pod = read_json(directory / "pod.json")
        if pod is None or (pod.get("metadata") or {}).get("uid") != uid:
            pod = {"metadata": {"uid": uid, "name": "unknown", "namespace": ""}, "spec": {}}
        record = Record(uid=uid, directory=directory, pod=pod, on_disk=True)
        record.sandbox = _sandbox(record, sandboxes)
        runtime.adopt(uid, record.containers_dir)
        found[uid] = record
    return found


def _sandbox(record: Record, sandboxes: Sandboxes) -> Sandbox | None:
    saved = read_json(record.directory / "sandbox.json")
    if saved is None:
        return None
    # The host may have been restarted: pins do not survive that, but the network agent still has to be told.
    pinned = record.view.host_network or sandboxes.has_network(record.directory)
    ready = bool(saved.get("ready")) and pinned
    return Sandbox(
        ready=ready,
        address=str(saved.get("address") or ""),
        cleared=ready and bool(saved.get("cleared")),
        created_at=saved["createdAt"],
        epoch=saved.get("epoch", 0),
    )

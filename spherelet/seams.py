"""The seams between the loop over pods and what it acts on: volumes, environment, probes, sandboxes. Pure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from spherelet.model import ContainerState, Image, Object, PodView


class Volumes(Protocol):
    """Volumes of pods (``spherelet/volumes/manager.py``)."""

    async def setup(self, pod: Object, pod_dir: Path, images: Mapping[str, Image]) -> Mapping[str, Path]:
        """Make all volumes of ``pod`` below ``pod_dir``; host path by volume name. Idempotent; called again to refresh.

        ``images`` are those of its image volumes, by volume name.
        Raises ``Retryable`` or ``Terminal`` with the text of the FailedMount event.
        """
        ...

    async def subpaths(
        self, container: Object, pod_dir: Path, paths: Mapping[str, Path], env: Mapping[str, str]
    ) -> Mapping[int, Path]:
        """Host paths of the container's volumeMounts that have a subPath, by their index; safe against links.

        Raises ``Terminal`` or ``Retryable`` with the CreateContainerConfigError text.
        """
        ...

    async def teardown(self, pod_dir: Path) -> None:
        """Unmount and remove all volumes below ``pod_dir``. Idempotent; needs no pod object."""
        ...


class Environment(Protocol):
    """Environment variables of a container (``spherelet/volumes/environment.py``)."""

    async def __call__(self, pod: Object, container: Object, pod_ip: str, host_ip: str) -> Sequence[tuple[str, str]]:
        """env, envFrom and service variables, expanded. ``Terminal`` carries the CreateContainerConfigError text."""
        ...


class Probes(Protocol):
    """Probe workers (``spherelet/probes/worker.py``). Results arrive by the callback given when it was built:

    ``on_result(pod_uid, container_id, kind, ok, message)`` on the event loop, after thresholds, on each change and for
    each liveness or startup failure. Kinds: ``startup``, ``readiness``, ``liveness``.
    """

    def start(self, pod: PodView, state: ContainerState, pod_ip: str) -> None:
        """Start the probes of a running container. Idempotent for the same container id."""
        ...

    def stop(self, container_id: str) -> None:
        """Stop the probes of a container. Idempotent."""
        ...


class Sandboxes(Protocol):
    """What a pod has on the host before its containers (``spherelet/runtime/sandbox.py``)."""

    async def make(
        self, pod: PodView, directory: Path, kinds: tuple[str, ...], hostname: str, sysctls: Mapping[str, str]
    ) -> None:
        """Shared memory, pinned namespaces of ``kinds``, the pod's cgroup. Idempotent. Raises ``OSError``."""
        ...

    def resize(self, pod: PodView) -> None:
        """Set the limits of the pod's cgroup to what its spec has now. Raises ``OSError`` for what is used already."""
        ...

    def has_network(self, directory: Path) -> bool:
        """Whether the pod's network namespace is pinned; pins do not survive a restart of the host."""
        ...

    def free(self, uid: str, directory: Path) -> None:
        """Undo ``make``. Idempotent; needs no pod object. Raises ``OSError``, ``Retryable``."""
        ...

    def unmount(self, directory: Path) -> None:
        """Nothing stays mounted below the pod's directory."""
        ...

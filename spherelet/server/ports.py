"""What the server needs from the rest of spherelet."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from spherelet.model import ContainerState, PodView


class Pods(Protocol):
    """Pods of this host, as known now. Nothing here blocks."""

    def pod(self, namespace: str, name: str) -> PodView | None:
        """The pod by name; the newest when an ending namesake is still here."""
        ...

    def pods(self) -> Iterable[PodView]:
        """Every pod bound to this host."""
        ...

    def containers(self, pod_uid: str) -> Mapping[str, tuple[ContainerState, ...]]:
        """Attempts by container name, oldest first."""
        ...

    def netns(self, pod_uid: str) -> Path | None:
        """The pod's pinned network namespace; None with hostNetwork."""
        ...

    def runtime_command(self, handler: str) -> Sequence[str]:
        """OCI runtime binary and its global options (``--root``)."""
        ...

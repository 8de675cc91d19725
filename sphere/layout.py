"""Where the one-machine cluster keeps its files. Pure: paths only."""

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
LOCK_DIR = Path("/run/sphere")
"""Machine-wide: one cluster per machine, because namespaces, routes and port 6443 are the machine's."""


@dataclass(frozen=True)
class Layout:
    """Paths below the run directory."""

    run: Path

    @staticmethod
    def default() -> "Layout":
        """``$SPHERE_RUN``, else ``run`` in the checkout."""
        return Layout(Path(os.environ.get("SPHERE_RUN") or PROJECT / "run").absolute())

    @property
    def kubeconfig(self) -> Path:
        return self.run / "kubeconfig"

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def cluster(self) -> Path:
        """What `up` was last asked for; its presence means that a cluster is up, or half-made."""
        return self.run / "cluster.json"

    def logs(self, machine: str) -> Path:
        return self.run / "logs" / machine

    def state(self, machine: str) -> Path:
        """State that survives a power cut of the machine."""
        return self.run / "control" if machine == "control" else self.run / "hosts" / machine

    def runtime(self, machine: str) -> Path:
        """What exists only while the machine runs: its spec, PID and control socket."""
        return self.run / "machines" / machine

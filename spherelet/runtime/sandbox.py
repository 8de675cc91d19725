"""What a pod has on the host before its containers: shared memory, pinned namespaces, its cgroup. The real one."""

from collections.abc import Mapping
from pathlib import Path

from common.errors import Retryable
from spherelet.model import PodView
from spherelet.runtime import cgroups, mounts, namespaces

SHM_OPTIONS = "mode=1777,size=65536k"


class HostSandboxes:
    """``spherelet.seams.Sandboxes`` on this host."""

    def __init__(self, cgroup_parent: str) -> None:
        self._cgroup_parent = cgroup_parent

    async def make(
        self, pod: PodView, directory: Path, kinds: tuple[str, ...], hostname: str, sysctls: Mapping[str, str]
    ) -> None:
        shm = directory / "shm"
        shm.mkdir(mode=0o1777, exist_ok=True)
        if not mounts.is_mount(shm):
            mounts.mount("shm", shm, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC, SHM_OPTIONS)
        await namespaces.pin(directory / "ns", kinds, hostname, sysctls)
        self.resize(pod)

    def resize(self, pod: PodView) -> None:
        cgroups.make_pod(cgroups.pod_path(self._cgroup_parent, cgroups.qos(pod.spec), pod.uid), pod.spec)

    def has_network(self, directory: Path) -> bool:
        return "net" in namespaces.pinned(directory / "ns")

    def free(self, uid: str, directory: Path) -> None:
        namespaces.unpin(directory / "ns")
        self.unmount(directory)
        for qos in ("Guaranteed", "Burstable", "BestEffort"):
            if not cgroups.remove_pod(cgroups.pod_path(self._cgroup_parent, qos, uid)):
                raise Retryable("processes are left in the pod's cgroup")

    def unmount(self, directory: Path) -> None:
        for path in mounts.below(directory):
            mounts.unmount(path)

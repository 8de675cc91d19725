"""What must hold at every step of DaemonSets and StatefulSets. See ``checkers`` for how it is judged."""

from typing import TYPE_CHECKING

from controller.kinds.kind import Object
from controller.reconcilers import owners, pods
from controller.reconcilers.daemon_placement import target_of
from controller.runtime.resources import PODS
from spherelet.model import ContainerState

if TYPE_CHECKING:
    from tests.sim.checkers import Checkers
    from tests.sim.host import Host


class WorkloadCheckers:
    """One per run, beside ``Checkers``, which tells it what happens."""

    def __init__(self, checkers: "Checkers") -> None:
        self._checkers = checkers
        self._identities: dict[str, str] = {}
        """Namespace and name by uid of every pod of a StatefulSet that ever was."""

    def on_pod(self, old: Object | None, new: Object) -> None:
        """A pod was made or changed."""
        controller = owners.controller_of(new)
        if controller is None or old is not None:
            return
        meta = new["metadata"]
        if controller["kind"] == "StatefulSet":
            self._identities[meta["uid"]] = f"{meta['namespace']}/{meta['name']}"
        if controller["kind"] == "DaemonSet":
            self._checkers.count("one daemon per host")
            twins = [
                pod["metadata"]["name"]
                for pod in self._checkers.of(PODS)
                if pod is not new
                and pods.is_active(pod)
                and (owners.controller_of(pod) or {}).get("uid") == controller["uid"]
                and target_of(pod) == target_of(new)
            ]
            self._checkers.require(not twins, f"{meta['name']} is made for {target_of(new)}, which has {twins}")

    def on_start(self, hosts: list["Host"], state: ContainerState) -> None:
        """A container's process begins."""
        identity = self._identities.get(state.pod_uid)
        if identity is None:
            return
        self._checkers.count("identity")
        for host in hosts:
            for other in host.runtime.running():
                same = other.pod_uid != state.pod_uid and self._identities.get(other.pod_uid) == identity
                self._checkers.require(not same, f"{identity} starts while another {identity} runs on {host.name}")

"""What the CNI server may do: questions to the loop, links through the kernel."""

from collections.abc import Callable, Mapping
from typing import Any

from common.messages import PortItem
from nsx_agent.apply import Kernel
from nsx_agent.kernel import ownership
from nsx_agent.kernel.links import PodLink
from nsx_agent.loop import Loop


class LoopPorts:
    """``cni.server.Ports`` over a running loop."""

    def __init__(self, loop: Loop, kernel: Kernel, connected: Callable[[], bool]) -> None:
        self._loop = loop
        self._kernel = kernel
        self._connected = connected

    def port(self, pod_uid: str) -> PortItem | None:
        return self._loop.intent.port(pod_uid)

    def in_force(self, port: PortItem) -> bool:
        return self._loop.enforcer.port_in_force(port)

    def connect(self, port: PortItem) -> object:
        return self._loop.enforcer.connect(port)

    def mtu(self) -> int:
        return self._kernel.pod_mtu()

    async def wire(self, link: PodLink) -> None:
        await self._kernel.ensure_pod_link(link)

    async def unwire(self, pod_uid: str) -> None:
        await self._kernel.drop_pod_link(ownership.link_name(pod_uid))

    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        return await self._loop.wait_until(condition, timeout_s)

    def status(self) -> Mapping[str, Any]:
        desired = self._loop.desired
        return {
            "connected": self._connected(),
            "enforcing": self._loop.enforcer.committed is not None,
            "commit": self._loop.number,
            "scopes": {
                store.scope.path: {
                    "in_sync": store.in_sync,
                    "revision": 0 if store.manifest is None else store.manifest.revision,
                }
                for store in desired.stores()
            },
        }

"""A host's containers in memory: what conmon and the OCI runtime are to spherelet, and the sandboxes around them.

Held to the real ones by ``tests/contract/test_runtime_contract.py``. It outlives spherelet as conmon does; a power cut
ends everything. Faults on demand: slow or failing creation and start, processes that die or ignore SIGTERM.
"""

import asyncio
import random
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.clock import Clock
from spherelet.model import ContainerState, Exit, Image, PodView
from spherelet.runtime.client import RuntimeFailed
from spherelet.runtime.state import START_ERROR

LOST = Exit(255, 0.0, "ContainerStatusUnknown", "the host was restarted")


@dataclass
class RuntimeOptions:
    """Probabilities of failure; delays are upper ends of uniform ranges; ``stubborn`` ones outlive SIGTERM."""

    delay_s: float = 0.0
    fail: float = 0.0
    stubborn: float = 0.0


class FakeRuntime:
    """Has the face of ``spherelet.runtime.client.Runtime``. ``on_exit`` belongs to the spherelet that runs now."""

    def __init__(self, clock: Clock, rng: random.Random, options: RuntimeOptions) -> None:
        self._clock = clock
        self._rng = rng
        self.options = options
        self.on_exit: Callable[[str], None] = lambda uid: None
        self.on_start: Callable[[ContainerState], None] = lambda state: None
        self.on_signal: Callable[[ContainerState, int], None] = lambda state, number: None
        self._states: dict[str, dict[str, list[ContainerState]]] = {}
        self._ended: dict[str, asyncio.Event] = {}

    # Questions

    def container(self, pod_uid: str, name: str) -> ContainerState | None:
        attempts = self._states.get(pod_uid, {}).get(name)
        return attempts[-1] if attempts else None

    def attempts(self, pod_uid: str) -> dict[str, tuple[ContainerState, ...]]:
        return {name: tuple(attempts) for name, attempts in self._states.get(pod_uid, {}).items()}

    def running(self) -> Iterable[ContainerState]:
        return [each for pods in self._states.values() for states in pods.values() for each in states if each.running]

    # What spherelet does

    async def create(self, wanted: ContainerState, image: Image, spec: Mapping[str, Any], *, stdin: bool) -> None:
        await self._work("CreateContainerError")
        wanted.directory.mkdir(parents=True, exist_ok=True)
        self._ended[wanted.id] = asyncio.Event()
        self._put(replace(wanted, pid=1, conmon_pid=1))

    async def start(self, pod_uid: str, name: str) -> ContainerState:
        await self._work("StartError")
        current = self.container(pod_uid, name)
        if current is None or current.exit is not None:
            raise RuntimeFailed("StartError", "no such container")
        current = replace(current, started_at=self._clock.now())
        self._put(current)
        self.on_start(current)
        return current

    async def resize(self, current: ContainerState, resources: str, limits: Mapping[str, Any]) -> None:
        await self._work("ResizeError")
        latest = self._find(current)
        if latest is not None:
            self._put(replace(latest, resources=resources))

    def signal(self, current: ContainerState, number: int) -> None:
        latest = self._find(current)
        if latest is None or latest.exit is not None:
            return
        self.on_signal(latest, number)
        if number == signal.SIGKILL or self._rng.random() >= self.options.stubborn:
            asyncio.get_running_loop().call_later(self._rng.uniform(0, 0.5), self._end, latest, 128 + number)

    async def wait_ended(self, current: ContainerState, timeout_s: float) -> bool:
        latest, event = self._find(current), self._ended.get(current.id)
        if event is None or latest is None or latest.exit is not None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def mark_ended(self, current: ContainerState, code: int, reason: str, message: str) -> None:
        latest = self._find(current)
        if latest is not None and reason == START_ERROR:
            self._put(replace(latest, started_at=latest.started_at or latest.created_at))
        self._finish(current, Exit(code, self._clock.now(), reason, message))

    async def reap(self, current: ContainerState) -> None:
        await self._delay()
        latest = self._find(current)
        if latest is not None:
            self._put(replace(latest, reaped=True, pid=0, conmon_pid=0))

    def forget(self, current: ContainerState) -> None:
        attempts = self._states.get(current.pod_uid, {}).get(current.name, [])
        attempts[:] = [each for each in attempts if each.attempt != current.attempt]

    def forget_pod(self, pod_uid: str) -> None:
        self._states.pop(pod_uid, None)

    def adopt(self, pod_uid: str, containers: Path) -> None:
        """All of it is still known."""

    def audit(self) -> None:
        """Ends are always heard of."""

    # Faults

    def crash(self, current: ContainerState) -> None:
        """The container's process dies by itself."""
        self._end(current, 1)

    def power_cut(self) -> None:
        """Every container is gone; only how it ended is unknown."""
        for pods in self._states.values():
            for attempts in pods.values():
                for each in attempts:
                    if each.exit is None:
                        self._finish(each, replace(LOST, finished_at=self._clock.now()))

    def _end(self, current: ContainerState, code: int) -> None:
        reason = "Completed" if code == 0 else "Error"
        self._finish(current, Exit(code, self._clock.now(), reason))

    def _finish(self, current: ContainerState, how: Exit) -> None:
        latest = self._find(current)
        if latest is None or latest.exit is not None:
            return
        self._put(replace(latest, exit=how, pid=0))
        if current.id in self._ended:
            self._ended[current.id].set()
        self.on_exit(current.pod_uid)

    async def _work(self, reason: str) -> None:
        await self._delay()
        if self._rng.random() < self.options.fail:
            raise RuntimeFailed(reason, "the runtime failed")

    async def _delay(self) -> None:
        if self.options.delay_s:
            await self._clock.sleep(self._rng.uniform(0, self.options.delay_s))

    def _find(self, current: ContainerState) -> ContainerState | None:
        found = self._states.get(current.pod_uid, {}).get(current.name, [])
        return next((each for each in found if each.attempt == current.attempt and each.id == current.id), None)

    def _put(self, value: ContainerState) -> None:
        attempts = self._states.setdefault(value.pod_uid, {}).setdefault(value.name, [])
        attempts[:] = sorted([*(e for e in attempts if e.attempt != value.attempt), value], key=lambda e: e.attempt)


class FakeSandboxes:
    """``spherelet.seams.Sandboxes``: remembers what is pinned."""

    def __init__(self) -> None:
        self._pinned: set[Path] = set()

    async def make(
        self, pod: PodView, directory: Path, kinds: tuple[str, ...], hostname: str, sysctls: Mapping[str, str]
    ) -> None:
        self._pinned.add(directory)

    def resize(self, pod: PodView) -> None:
        """There are no limits here."""

    def has_network(self, directory: Path) -> bool:
        return directory in self._pinned

    def free(self, uid: str, directory: Path) -> None:
        self._pinned.discard(directory)

    def unmount(self, directory: Path) -> None:
        """Nothing is mounted."""

    def power_cut(self) -> None:
        self._pinned.clear()

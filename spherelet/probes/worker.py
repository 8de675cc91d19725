"""Probes of running containers: one task per container and kind; results go out by callbacks that only mark dirty.

Each verdict is also a small file beside the container, so that a restarted spherelet goes on from it: a container that
was ready stays ready until its probe fails often enough.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from common.clock import Clock
from spherelet.model import ContainerState, PodView
from spherelet.probes.attempt import Target, attempt
from spherelet.probes.threshold import Counting, count, eager_waits, period_s

Object = dict[str, Any]
KINDS: Final = {"startup": "startupProbe", "liveness": "livenessProbe", "readiness": "readinessProbe"}
OnResult = Callable[[str, str, str, bool, str], None]
"""(pod uid, container id, kind, ok, message)."""
OnFailure = Callable[[PodView, ContainerState, str], None]
"""(pod, container, text of the Unhealthy event), for each failed attempt."""


class Probes:
    """See ``spherelet.seams.Probes``. ``run`` must be running for anything to be probed."""

    def __init__(
        self,
        clock: Clock,
        runtime_command: Callable[[str], Sequence[str]],
        on_result: OnResult,
        on_failure: OnFailure,
    ) -> None:
        self._clock = clock
        self._runtime_command = runtime_command
        self._on_result = on_result
        self._on_failure = on_failure
        self._group: asyncio.TaskGroup | None = None
        self._waiting: dict[str, tuple[PodView, ContainerState, str]] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for pod, state, pod_ip in list(self._waiting.values()):
                self._begin(group, pod, state, pod_ip)
            self._waiting.clear()
            await asyncio.Event().wait()

    def start(self, pod: PodView, state: ContainerState, pod_ip: str) -> None:
        """Start the probes of a running container. Idempotent for the same container id."""
        view = pod.container(state.name)
        if state.id in self._running or view is None or not any(key in view.spec for key in KINDS.values()):
            return
        for kind in KINDS:
            if kind != "liveness" and _remembered(state, kind):
                self._on_result(pod.uid, state.id, kind, True, "")
        if self._group is None:
            self._waiting[state.id] = (pod, state, pod_ip)
        else:
            self._begin(self._group, pod, state, pod_ip)

    def stop(self, container_id: str) -> None:
        """Stop the probes of a container; no callback comes after this. Idempotent."""
        self._waiting.pop(container_id, None)
        task = self._running.pop(container_id, None)
        if task is not None:
            task.cancel()

    def _begin(self, group: asyncio.TaskGroup, pod: PodView, state: ContainerState, pod_ip: str) -> None:
        self._running[state.id] = group.create_task(self._container(pod, state, pod_ip))

    async def _container(self, pod: PodView, state: ContainerState, pod_ip: str) -> None:
        view = pod.container(state.name)
        assert view is not None
        ports = {str(p["name"]): int(p["containerPort"]) for p in view.spec.get("ports") or () if p.get("name")}
        target = Target(state, pod_ip, ports, self._runtime_command(state.handler))
        if "startupProbe" in view.spec and not _remembered(state, "startup"):
            await self._probe(pod, target, "startup", view.spec["startupProbe"])
        async with asyncio.TaskGroup() as group:
            for kind in ("liveness", "readiness"):
                if KINDS[kind] in view.spec:
                    group.create_task(self._probe(pod, target, kind, view.spec[KINDS[kind]]))

    async def _probe(self, pod: PodView, target: Target, kind: str, probe: Object) -> None:
        """Attempt after attempt. A startup probe ends with its success; a failed one waits to be stopped."""
        state = target.state
        delay_s = state.started_at + float(probe.get("initialDelaySeconds") or 0) - self._clock.now()
        if delay_s > 0:
            await self._clock.sleep(delay_s)
        counting = Counting(settled=True) if _remembered(state, kind) else Counting()
        eager = list(eager_waits(probe)) if kind != "liveness" and not counting.settled else []
        while True:
            began = self._clock.monotonic()
            verdict = await attempt(probe, target)
            if not verdict.ok and eager:
                await self._clock.sleep(eager.pop(0))
                continue
            eager = []
            before, counting = counting, count(counting, verdict.ok, probe)
            if not verdict.ok:
                self._on_failure(pod, state, f"{kind.capitalize()} probe failed: {verdict.message}")
            if counting.settled is not None and counting.settled is not before.settled:
                _remember(state, kind, counting.settled)
                self._on_result(pod.uid, state.id, kind, counting.settled, verdict.message)
                if kind == "startup" and counting.settled:
                    return
                if kind != "readiness" and not counting.settled:
                    await asyncio.Event().wait()  # the container is being replaced; this task goes with it
            await self._clock.sleep(max(0.0, began + period_s(probe) - self._clock.monotonic()))


def _verdict_file(state: ContainerState, kind: str) -> Path:
    return state.directory / f"probe-{kind}"


def _remember(state: ContainerState, kind: str, ok: bool) -> None:
    """Keep a verdict; its file exists while it is good. A full disk costs no more than a fresh start of the probe."""
    with contextlib.suppress(OSError):
        if ok:
            _verdict_file(state, kind).touch(mode=0o600)
        else:
            _verdict_file(state, kind).unlink(missing_ok=True)


def _remembered(state: ContainerState, kind: str) -> bool:
    return _verdict_file(state, kind).exists()

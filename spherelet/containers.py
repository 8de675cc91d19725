"""Actions on containers: create, start with hooks and probes, stop with grace, reap, remove. See ``apply``."""

import contextlib
import signal

from common.errors import Retryable, SphereError, Terminal
from common.logs import logger
from spherelet import metrics
from spherelet.config import kill_timeout_s
from spherelet.hooks import HookFailed
from spherelet.model import (
    PAUSE,
    RESIZE_ERROR,
    ContainerState,
    ContainerView,
    CreateContainer,
    ReapContainer,
    RemoveContainer,
    ResizeContainer,
    Role,
    StartContainer,
    StopContainer,
)
from spherelet.observed import CONFIG_ERROR, Record
from spherelet.ports import Ports, failed
from spherelet.runtime.client import RuntimeFailed
from spherelet.runtime.state import START_ERROR

POST_START_TIMEOUT_S = 300.0
GRACE_CHECK_S = 1.0
START_ERROR_STATUS = 128

log = logger("apply")


async def create(action: CreateContainer, record: Record, ports: Ports) -> None:
    name = action.container
    container = record.view.container(name)
    if container is None:
        return
    reason = CONFIG_ERROR
    try:
        handler = await ports.handler(str(record.view.spec.get("runtimeClassName") or ""))
        joined_pid = _joined_pid(record, container, ports)
        state, image, built = await ports.assembly.container(
            record, container, action.attempt, action.backoff_s, handler, joined_pid
        )
        reason = "CreateContainerError"
        await ports.runtime.create(state, image, built, stdin=bool(container.spec.get("stdin")))
    except (SphereError, OSError) as err:
        if isinstance(err, RuntimeFailed) and err.reason == START_ERROR:
            _never_began(action, record, err, ports)
            return
        record.container_failures[name] = failed(
            record.container_failures.get(name), reason, err, ports, "CreateContainer"
        )
        _tell_of(container, record, ports, "Failed", f"Error: {err}", warning=True)
        if reason == "CreateContainerError":
            record.images.pop(name, None)  # its layers may have been removed behind our back: looked up again
        made = ports.runtime.container(record.uid, name)
        if made is not None and made.attempt == action.attempt and made.exit is None:
            # It never ran: marked so, it is reaped and removed, and the same attempt is made again later.
            ports.runtime.mark_ended(made, START_ERROR_STATUS, reason, str(err))
        return
    if container.pull_policy == "Always":
        record.images.pop(name, None)  # the next attempt has to ask the registry again
    _tell_of(container, record, ports, "Created", f"Created container: {name}")


async def start(action: StartContainer, record: Record, ports: Ports) -> None:
    name = action.container
    container = record.view.container(name)
    if container is None:
        return
    try:
        state = await ports.runtime.start(record.uid, name)
    except Retryable as err:
        _never_began(action, record, err, ports)
        return
    record.container_failures.pop(name, None)
    if action.attempt:
        metrics.container_restarts.inc()
    _tell_of(container, record, ports, "Started", f"Started container {name}")
    begin(record, state, ports)


def _never_began(action: CreateContainer | StartContainer, record: Record, err: Exception, ports: Ports) -> None:
    """The OCI runtime could not run the container's program: an attempt that failed, and counts as one."""
    metrics.operation_errors.labels(type(action).__name__).inc()
    container = record.view.container(action.container)
    if container is not None:
        _tell_of(container, record, ports, "Failed", f"Error: {err}", warning=True)
    made = ports.runtime.container(record.uid, action.container)
    if made is not None and made.attempt == action.attempt and made.exit is None:
        ports.runtime.signal(made, signal.SIGKILL)
        ports.runtime.mark_ended(made, START_ERROR_STATUS, START_ERROR, str(err))
    record.container_failures.pop(action.container, None)


def _joined_pid(record: Record, container: ContainerView, ports: Ports) -> int:
    """Whose PID namespace the container joins; 0 for one of its own. Raises ``Retryable`` while that is not there."""
    target = str(container.spec.get("targetContainerName") or "")
    if not target and record.view.pause is not None and container.role is not Role.PAUSE:
        target = PAUSE
    if not target or record.view.spec.get("hostPID"):
        return 0
    state = ports.runtime.container(record.uid, target)
    if state is None or not state.running or not state.pid:
        raise Retryable(f'unable to find target container "{target}": it is not running')
    return state.pid


def _tell_of(
    container: ContainerView, record: Record, ports: Ports, reason: str, message: str, *, warning: bool = False
) -> None:
    """An event about a container; about our own, only that the pod could not be made."""
    if container.role is not Role.PAUSE:
        ports.events.tell(record.view, reason, message, container=container.name, warning=warning)
    elif warning:
        text = f"Failed to create pod sandbox: {message}"
        ports.events.tell(record.view, "FailedCreatePodSandBox", text, warning=True)


def begin(record: Record, state: ContainerState, ports: Ports) -> None:
    """What goes with a running container: its postStart hook, then its probes."""
    container = record.view.container(state.name)
    if container is None or record.sandbox is None:
        return
    hook = (container.spec.get("lifecycle") or {}).get("postStart")
    if hook and not (state.directory / "hooked").exists():
        record.hooks_pending.add(state.name)
        ports.launch(record, f"hook:{state.name}", _post_start(hook, record, state, ports))
    elif state.exit is None:
        ports.probes.start(record.view, state, record.sandbox.address)


async def _post_start(hook: dict[str, object], record: Record, state: ContainerState, ports: Ports) -> None:
    container = record.view.container(state.name)
    assert container is not None
    assert record.sandbox is not None
    try:
        await ports.hooks.run(hook, container, state, record.sandbox.address, POST_START_TIMEOUT_S)
    except HookFailed as err:
        ports.events.tell(
            record.view, "FailedPostStartHook", f"PostStartHook failed: {err}", container=state.name, warning=True
        )
        ports.runtime.signal(state, signal.SIGKILL)
        return
    finally:
        record.hooks_pending.discard(state.name)
    with contextlib.suppress(OSError):
        (state.directory / "hooked").touch(mode=0o600)
    current = ports.runtime.container(record.uid, state.name)
    if current is not None and current.id == state.id and current.running:
        ports.probes.start(record.view, current, record.sandbox.address if record.sandbox else "")


async def stop(action: StopContainer, record: Record, ports: Ports) -> None:
    state = ports.runtime.container(record.uid, action.container)
    if state is None or state.exit is not None:
        return
    ports.probes.stop(state.id)
    container = record.view.container(action.container)
    text = action.reason or f"Stopping container {action.container}"
    if action.container != PAUSE:
        ports.events.tell(record.view, "Killing", text, container=action.container)
    ends = ports.clock.monotonic() + action.grace_s
    hook = ((container.spec.get("lifecycle") or {}).get("preStop")) if container is not None else None
    if hook and container is not None and state.running and action.grace_s > 0 and record.sandbox is not None:
        try:
            await ports.hooks.run(hook, container, state, record.sandbox.address, action.grace_s)
        except HookFailed as err:
            ports.events.tell(
                record.view, "FailedPreStopHook", f"PreStopHook failed: {err}", container=state.name, warning=True
            )
        # A hook that used up the time still leaves the process two seconds, as Kubernetes does.
        ends = max(ends, ports.clock.monotonic() + 2.0)
    if state.running and action.grace_s > 0:
        ports.runtime.signal(state, _number(state.stop_signal))
        while True:
            left = ends - ports.clock.monotonic()
            if record.view.deleting:  # a second delete may shorten the grace while we wait
                left = min(left, left - action.grace_s + record.view.grace_s)
            if left <= 0 or await ports.runtime.wait_ended(state, min(left, GRACE_CHECK_S)):
                break
    ports.runtime.signal(state, signal.SIGKILL)
    if not await ports.runtime.wait_ended(state, kill_timeout_s):
        log.warning("container survives SIGKILL", pod=record.view.key, object=action.container)


async def resize(action: ResizeContainer, record: Record, ports: Ports) -> None:
    """Other CPU and memory for a running container, within a pod that is resized with it."""
    container = record.view.container(action.container)
    state = ports.runtime.container(record.uid, action.container)
    if container is None or state is None or not state.running:
        return
    try:
        with contextlib.suppress(OSError):  # a pod that shrinks cannot do it before its containers have
            ports.sandboxes.resize(record.view)
        await ports.runtime.resize(state, container.resources, ports.assembly.limits(container))
        ports.sandboxes.resize(record.view)
    except (SphereError, OSError) as err:
        old = record.container_failures.get(action.container)
        record.container_failures[action.container] = failed(old, RESIZE_ERROR, err, ports, "ResizeContainer")
        _tell_of(container, record, ports, RESIZE_ERROR, f"Error resizing container: {err}", warning=True)
        return
    record.container_failures.pop(action.container, None)
    _tell_of(container, record, ports, "ResizeCompleted", f"Container {action.container} has {container.resources}")


async def reap(action: ReapContainer, record: Record, ports: Ports) -> None:
    for state in ports.runtime.attempts(record.uid).get(action.container, ()):
        if state.attempt != action.attempt or state.reaped:
            continue
        ports.probes.stop(state.id)
        for kind in ("startup", "readiness", "liveness"):
            record.probes.pop((state.id, kind), None)
        try:
            await ports.runtime.reap(state)
        except (Retryable, Terminal, OSError) as err:
            log.warning("container not reaped", pod=record.view.key, object=state.name, reason=str(err))
            record.container_failures[state.name] = failed(
                record.container_failures.get(state.name), "ReapError", err, ports, "ReapContainer"
            )


def remove(action: RemoveContainer, record: Record, ports: Ports) -> None:
    for state in ports.runtime.attempts(record.uid).get(action.container, ()):
        if state.attempt == action.attempt:
            ports.runtime.forget(state)
            record.messages.pop(state.id, None)


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if name.startswith("SIGRTMIN"):
        return signal.SIGRTMIN + int(name.removeprefix("SIGRTMIN") or 0)
    found = getattr(signal, name, signal.SIGTERM)
    return int(found)

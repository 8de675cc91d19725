"""The only executor: one match over ``Action``. What happened goes into the record; the loop then plans again.

Each action is idempotent and runs as a task of its own; what it cannot do now becomes a ``Failure`` with a time to
retry, which the plan respects and the report shows.
"""

import contextlib
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from common.clock import Clock
from common.errors import Retryable, SphereError, Terminal
from common.logs import logger
from spherelet import assembly, files, metrics
from spherelet.assembly import Assembly
from spherelet.config import (
    Config,
    drain_timeout_s,
    image_backoff_base_s,
    image_backoff_cap_s,
    kill_timeout_s,
    retry_base_s,
    retry_cap_s,
)
from spherelet.events import Events
from spherelet.hooks import HookFailed, Hooks
from spherelet.images.store import ImageError, Images, check_reference
from spherelet.model import (
    PAUSE,
    Abandon,
    Action,
    AddNetwork,
    ContainerState,
    ContainerView,
    CreateContainer,
    Drain,
    Failure,
    PrepareSandbox,
    PullImage,
    ReapContainer,
    ReleaseSandbox,
    RemoveContainer,
    RemovePod,
    Role,
    Sandbox,
    SetupVolumes,
    StartContainer,
    StopContainer,
    Wait,
)
from spherelet.network import Network
from spherelet.observed import Record
from spherelet.runtime.client import Runtime, RuntimeFailed
from spherelet.runtime.state import START_ERROR
from spherelet.seams import Probes, Sandboxes, Volumes

POST_START_TIMEOUT_S = 300.0
GRACE_CHECK_S = 1.0
DRAIN_RETRY_S = 0.5
START_ERROR_STATUS = 128

log = logger("apply")


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything that actions act on."""

    config: Config
    clock: Clock
    runtime: Runtime
    sandboxes: Sandboxes
    images: Images
    network: Network
    volumes: Volumes
    probes: Probes
    events: Events
    assembly: Assembly
    hooks: Hooks
    handler: Callable[[str], Awaitable[str]]
    """Runtime handler of a RuntimeClass name (empty = the default)."""
    credentials: Callable[[Record, str], Awaitable[dict[str, str] | None]]
    """Registry credentials for an image, of a pod's imagePullSecrets."""
    launch: Callable[[Record, str, Awaitable[None]], None]
    """Run something else for a pod under a busy key."""


async def apply(action: Action, record: Record, ports: Ports) -> None:
    """Do one action."""
    name = type(action).__name__
    began = ports.clock.monotonic()
    try:
        match action:
            case PullImage():
                await _pull(action, record, ports)
            case PrepareSandbox():
                await _prepare_sandbox(record, ports)
            case AddNetwork():
                await _add_network(record, ports)
            case SetupVolumes():
                await _setup_volumes(record, ports)
            case CreateContainer():
                await _create(action, record, ports)
            case StartContainer():
                await _start(action, record, ports)
            case StopContainer():
                await _stop(action, record, ports)
            case ReapContainer():
                await _reap(action, record, ports)
            case RemoveContainer():
                _remove_container(action, record, ports)
            case Drain():
                await _drain(record, ports)
            case Abandon():
                for key in action.keys:
                    if key in record.busy:
                        record.busy[key].cancel()
            case ReleaseSandbox():
                await _release(record, ports)
            case RemovePod():
                _remove_pod(record, ports)
            case Wait():
                pass
            case _:
                assert_never(action)
    finally:
        metrics.operation_seconds.labels(name).observe(ports.clock.monotonic() - began)


def failure(old: Failure | None, reason: str, message: str, now: float, base_s: float, cap_s: float) -> Failure:
    """The next failure after ``old``: the same again doubles the time to the next try."""
    count = old.count + 1 if old is not None else 1
    return Failure(reason, message, now + min(cap_s, base_s * 2.0 ** min(20, count - 1)), count)


def _failed(old: Failure | None, reason: str, err: Exception, ports: Ports, operation: str) -> Failure:
    metrics.operation_errors.labels(operation).inc()
    log.info("will retry", object=operation, reason=str(err))
    return failure(old, reason, str(err), ports.clock.now(), retry_base_s, retry_cap_s)


async def _pull(action: PullImage, record: Record, ports: Ports) -> None:
    name, reference = action.container, action.image
    tell = ports.events.tell
    try:
        check_reference(reference)
        offline = ports.config.containerd.offline
        image = None
        if action.policy != "Always" or offline:
            image = ports.images.known(reference) or await ports.images.status(reference)
        if image is None and action.policy == "Never":
            text = f'Container image "{reference}" is not present with pull policy of Never'
            raise ImageError("ErrImageNeverPull", text)
        if image is not None:
            tell(record.view, "Pulled", f'Container image "{reference}" already present on machine', container=name)
        else:
            tell(record.view, "Pulling", f'Pulling image "{reference}"', container=name)
            began = ports.clock.monotonic()
            image = await ports.images.pull(reference, await ports.credentials(record, reference))
            seconds = ports.clock.monotonic() - began
            tell(record.view, "Pulled", f'Successfully pulled image "{reference}" in {seconds:.3f}s', container=name)
    except SphereError as err:
        if not _still_asked(action, record):
            return
        reason = err.reason if isinstance(err, ImageError) else "ErrImagePull"
        metrics.operation_errors.labels("PullImage").inc()
        record.image_failures[name] = failure(
            record.image_failures.get(name),
            reason,
            str(err),
            ports.clock.now(),
            image_backoff_base_s,
            image_backoff_cap_s,
        )
        if reason == "ErrImagePull":
            tell(record.view, "Failed", f'Failed to pull image "{reference}": {err}', container=name, warning=True)
        elif reason == "InvalidImageName":
            tell(record.view, "InspectFailed", str(err), container=name, warning=True)
        else:
            tell(record.view, reason, str(err), container=name, warning=True)
        tell(record.view, "Failed", f"Error: {reason}", container=name, warning=True)
        return
    if _still_asked(action, record):
        record.image_failures.pop(name, None)
        record.images[name] = image


def _still_asked(action: PullImage, record: Record) -> bool:
    """The pod may have been given another image meanwhile."""
    container = record.view.container(action.container)
    return container is not None and container.image == action.image


async def _prepare_sandbox(record: Record, ports: Ports) -> None:
    pod = record.view
    try:
        record.save_pod()
        # Written first: whatever a crash leaves half-made below is found and released.
        created_at = record.sandbox.created_at if record.sandbox is not None else ports.clock.now()
        record.save_sandbox(Sandbox(False, "", False, created_at))
        _make_etc(record, ports)
        kinds = assembly.wanted_namespaces(pod)
        context = pod.spec.get("securityContext") or {}
        sysctls = {each["name"]: str(each["value"]) for each in context.get("sysctls") or ()}
        await ports.sandboxes.make(pod, record.directory, kinds, files.hostname(pod, ports.config.host), sysctls)
    except (OSError, SphereError) as err:
        record.sandbox_failure = _failed(record.sandbox_failure, "FailedCreatePodSandBox", err, ports, "PrepareSandbox")
        text = f"Failed to create pod sandbox: {err}"
        ports.events.tell(pod, "FailedCreatePodSandBox", text, warning=True)
        return
    record.sandbox_failure = None
    # A pod with its own network learns its address from the network agent, while its containers are created.
    address = ports.config.address if pod.host_network else ""
    record.save_sandbox(Sandbox(True, address, pod.host_network, created_at))


async def _add_network(record: Record, ports: Ports) -> None:
    assert record.sandbox is not None
    try:
        address = await ports.network.add(record.uid, record.namespaces_dir / "net")
        _make_hosts(record, ports, address)
    except (OSError, SphereError) as err:
        record.network_failure = _failed(record.network_failure, "FailedCreatePodSandBox", err, ports, "AddNetwork")
        text = f"Failed to create pod sandbox: network is not ready: {err}"
        ports.events.tell(record.view, "FailedCreatePodSandBox", text, warning=True)
        return
    record.network_failure = None
    if record.sandbox is not None:
        record.save_sandbox(replace(record.sandbox, address=address, cleared=True))


async def _setup_volumes(record: Record, ports: Ports) -> None:
    try:
        record.volumes = await ports.volumes.setup(record.pod, record.directory)
    except (SphereError, OSError) as err:
        record.volumes_failure = _failed(record.volumes_failure, "FailedMount", err, ports, "SetupVolumes")
        ports.events.tell(record.view, "FailedMount", str(err), warning=True)
        return
    record.volumes_failure = None


async def _create(action: CreateContainer, record: Record, ports: Ports) -> None:
    name = action.container
    container = record.view.container(name)
    if container is None:
        return
    reason = "CreateContainerConfigError"
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
        record.container_failures[name] = _failed(
            record.container_failures.get(name), reason, err, ports, "CreateContainer"
        )
        _tell_of(container, record, ports, "Failed", f"Error: {err}", warning=True)
        made = ports.runtime.container(record.uid, name)
        if made is not None and made.attempt == action.attempt and made.exit is None:
            # It never ran: marked so, it is reaped and removed, and the same attempt is made again later.
            ports.runtime.mark_ended(made, START_ERROR_STATUS, reason, str(err))
        return
    if container.pull_policy == "Always":
        record.images.pop(name, None)  # the next attempt has to ask the registry again
    _tell_of(container, record, ports, "Created", f"Created container: {name}")


async def _start(action: StartContainer, record: Record, ports: Ports) -> None:
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


async def _stop(action: StopContainer, record: Record, ports: Ports) -> None:
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


async def _reap(action: ReapContainer, record: Record, ports: Ports) -> None:
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
            record.container_failures[state.name] = _failed(
                record.container_failures.get(state.name), "ReapError", err, ports, "ReapContainer"
            )


def _remove_container(action: RemoveContainer, record: Record, ports: Ports) -> None:
    for state in ports.runtime.attempts(record.uid).get(action.container, ()):
        if state.attempt == action.attempt:
            ports.runtime.forget(state)
            record.messages.pop(state.id, None)


async def _drain(record: Record, ports: Ports) -> None:
    pod = record.view
    serves = record.sandbox is not None and not pod.host_network and pod.grace_s > 0
    if serves:
        await _wait_drained(record, ports, min(drain_timeout_s, pod.grace_s))
    record.drained = True


async def _wait_drained(record: Record, ports: Ports, timeout_s: float) -> None:
    """Until load balancers have forgotten the pod, or the time is over; an agent that restarts is asked again."""
    ends = ports.clock.monotonic() + timeout_s
    while (left_s := ends - ports.clock.monotonic()) > 0:
        try:
            await ports.network.drained(record.uid, left_s)
            return
        except SphereError as err:
            log.info("not drained", pod=record.view.key, reason=str(err))
            await ports.clock.sleep(min(DRAIN_RETRY_S, left_s))


async def _release(record: Record, ports: Ports) -> None:
    pod = record.view
    try:
        if record.sandbox is not None and not pod.host_network:
            await ports.network.delete(record.uid, record.namespaces_dir / "net")
        await ports.volumes.teardown(record.directory)
        ports.sandboxes.free(record.uid, record.directory)
    except (SphereError, OSError) as err:
        log.warning("sandbox not released", pod=pod.key, reason=str(err))
        record.sandbox_failure = _failed(record.sandbox_failure, "FailedKillPod", err, ports, "ReleaseSandbox")
        ports.events.tell(pod, "FailedKillPod", f"error killing pod: {err}", warning=True)
        return
    record.sandbox_failure = None
    record.volumes = None
    record.drop_sandbox()


def _remove_pod(record: Record, ports: Ports) -> None:
    ports.sandboxes.unmount(record.directory)
    shutil.rmtree(record.directory, ignore_errors=True)
    ports.runtime.forget_pod(record.uid)
    record.on_disk = False


def _make_etc(record: Record, ports: Ports) -> None:
    pod, config = record.view, ports.config
    etc = record.directory / "etc"
    etc.mkdir(mode=0o755, exist_ok=True)
    _make_hosts(record, ports, "")
    (etc / "hostname").write_text(files.hostname(pod, config.host) + "\n")
    (etc / "resolv.conf").write_text(files.resolv_conf(pod, config.dns, _read("/etc/resolv.conf")))
    for each in etc.iterdir():
        each.chmod(0o644)


def _make_hosts(record: Record, ports: Ports, address: str) -> None:
    """/etc/hosts, in place: containers that are created already have this very file mounted."""
    pod, config = record.view, ports.config
    if pod.host_network:
        text = _read("/etc/hosts") + "\n".join(files.host_aliases(pod))
    else:
        text = files.hosts(pod, address, files.hostname(pod, config.host), config.dns.domain)
    (record.directory / "etc/hosts").write_text(text)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="utf-8", errors="replace")
    return ""


def _number(name: str) -> int:
    if name.isdigit():
        return int(name)
    if name.startswith("SIGRTMIN"):
        return signal.SIGRTMIN + int(name.removeprefix("SIGRTMIN") or 0)
    found = getattr(signal, name, signal.SIGTERM)
    return int(found)

"""The only executor: one match over ``Action``. What happened goes into the record; the loop then plans again.

Each action is idempotent and runs as a task of its own; what it cannot do now becomes a ``Failure`` with a time to
retry, which the plan respects and the report shows.
"""

import contextlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from common.errors import SphereError
from common.logs import logger
from spherelet import assembly, containers, files, metrics
from spherelet.config import drain_timeout_s, image_backoff_base_s, image_backoff_cap_s, retry_base_s
from spherelet.images.store import ImageError, check_reference
from spherelet.model import (
    Abandon,
    Action,
    AddNetwork,
    CreateContainer,
    Drain,
    PodView,
    PrepareSandbox,
    PullImage,
    ReapContainer,
    ReleaseSandbox,
    RemoveContainer,
    RemovePod,
    ResizeContainer,
    Sandbox,
    SetupVolumes,
    StartContainer,
    StopContainer,
    Wait,
)
from spherelet.observed import Record
from spherelet.ports import Ports, failed, failure
from spherelet.volumes.images import PREFIX as VOLUME_PREFIX
from spherelet.volumes.images import image_of, image_volumes

DRAIN_RETRY_S = 0.5

log = logger("apply")


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
                await containers.create(action, record, ports)
            case StartContainer():
                await containers.start(action, record, ports)
            case StopContainer():
                await containers.stop(action, record, ports)
            case ResizeContainer():
                await containers.resize(action, record, ports)
            case ReapContainer():
                await containers.reap(action, record, ports)
            case RemoveContainer():
                containers.remove(action, record, ports)
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
    except OSError as err:
        # Whatever this host cannot do now (a full disk, no more files) must not end the care for other pods.
        metrics.operation_errors.labels(name).inc()
        log.warning("action failed", pod=record.view.key, object=action.key, reason=str(err))
        await ports.clock.sleep(retry_base_s)
    finally:
        metrics.operation_seconds.labels(name).observe(ports.clock.monotonic() - began)


async def _pull(action: PullImage, record: Record, ports: Ports) -> None:
    name, reference = action.container, action.image

    def tell(pod: PodView, reason: str, message: str, *, warning: bool = False) -> None:
        about = "" if name.startswith(VOLUME_PREFIX) else name
        ports.events.tell(pod, reason, message, container=about, warning=warning)

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
            tell(record.view, "Pulled", f'Container image "{reference}" already present on machine')
        else:
            tell(record.view, "Pulling", f'Pulling image "{reference}"')
            began = ports.clock.monotonic()
            image = await ports.images.pull(reference, await ports.credentials(record, reference))
            seconds = ports.clock.monotonic() - began
            tell(record.view, "Pulled", f'Successfully pulled image "{reference}" in {seconds:.3f}s')
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
            tell(record.view, "Failed", f'Failed to pull image "{reference}": {err}', warning=True)
        elif reason == "InvalidImageName":
            tell(record.view, "InspectFailed", str(err), warning=True)
        else:
            tell(record.view, reason, str(err), warning=True)
        tell(record.view, "Failed", f"Error: {reason}", warning=True)
        return
    if _still_asked(action, record):
        record.image_failures.pop(name, None)
        record.images[name] = image


def _still_asked(action: PullImage, record: Record) -> bool:
    """The pod may have been given another image meanwhile."""
    return image_of(record.view, action.container) == action.image


async def _prepare_sandbox(record: Record, ports: Ports) -> None:
    pod = record.view
    try:
        record.save_pod()
        # Written first: whatever a crash leaves half-made below is found and released.
        before = record.sandbox or Sandbox(False, created_at=ports.clock.now())
        ran = {each.epoch for attempts in ports.runtime.attempts(record.uid).values() for each in attempts}
        fresh = replace(before, ready=False, address="", cleared=False, epoch=before.epoch + (before.epoch in ran))
        record.save_sandbox(fresh)
        _make_etc(record, ports)
        kinds = assembly.wanted_namespaces(pod)
        context = pod.spec.get("securityContext") or {}
        sysctls = {each["name"]: str(each["value"]) for each in context.get("sysctls") or ()}
        name = files.kernel_hostname(pod, ports.config.host, ports.config.dns.domain)
        await ports.sandboxes.make(pod, record.directory, kinds, name, sysctls)
    except (OSError, SphereError) as err:
        record.sandbox_failure = failed(record.sandbox_failure, "FailedCreatePodSandBox", err, ports, "PrepareSandbox")
        text = f"Failed to create pod sandbox: {err}"
        ports.events.tell(pod, "FailedCreatePodSandBox", text, warning=True)
        return
    record.sandbox_failure = None
    # A pod with its own network learns its address from the network agent, while its containers are created.
    address = ports.config.address if pod.host_network else ""
    record.save_sandbox(replace(fresh, ready=True, address=address, cleared=pod.host_network))


async def _add_network(record: Record, ports: Ports) -> None:
    assert record.sandbox is not None
    try:
        address = await ports.network.add(record.uid, record.namespaces_dir / "net")
        _make_hosts(record, ports, address)
    except (OSError, SphereError) as err:
        record.network_failure = failed(record.network_failure, "FailedCreatePodSandBox", err, ports, "AddNetwork")
        text = f"Failed to create pod sandbox: network is not ready: {err}"
        ports.events.tell(record.view, "FailedCreatePodSandBox", text, warning=True)
        return
    record.network_failure = None
    if record.sandbox is not None:
        record.save_sandbox(replace(record.sandbox, address=address, cleared=True))


async def _setup_volumes(record: Record, ports: Ports) -> None:
    try:
        images = {each.name: record.images[each.view.name] for each in image_volumes(record.view)}
        record.volumes = await ports.volumes.setup(record.pod, record.directory, images)
    except (SphereError, OSError) as err:
        record.volumes_failure = failed(record.volumes_failure, "FailedMount", err, ports, "SetupVolumes")
        ports.events.tell(record.view, "FailedMount", str(err), warning=True)
        return
    record.volumes_failure = None


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
        record.sandbox_failure = failed(record.sandbox_failure, "FailedKillPod", err, ports, "ReleaseSandbox")
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
    (etc / "hostname").write_text(files.kernel_hostname(pod, config.host, config.dns.domain) + "\n")
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

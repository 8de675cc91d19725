"""What to do next for one pod.

Law 1: pure. Law 2: same inputs, same output, in a fixed order. Law 3: nothing is started that lifecycle says is ending.
Law 4: an action whose key is busy is not given again; everything that may run at the same time is given at once.
"""

from collections.abc import Iterator

from common.clock import parse_rfc3339
from spherelet import lifecycle
from spherelet.config import crash_backoff_base_s, crash_backoff_cap_s, crash_backoff_reset_s
from spherelet.lifecycle import Stage
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
    Observed,
    PodView,
    PrepareSandbox,
    PullImage,
    ReapContainer,
    ReleaseSandbox,
    RemoveContainer,
    RemovePod,
    ResizeContainer,
    Role,
    SetupVolumes,
    StartContainer,
    StopContainer,
    Wait,
)
from spherelet.volumes.images import image_volumes

SETTLE_S = 1.0
"""How long a new image must have been wanted before a container is stopped for it: several edits cost one restart, and
who edits and then looks finds the pod as it was, as with kubelet."""
SIDECAR_GRACE_S_MIN = 2.0
"""What a sidecar gets at least, however long the containers took that it serves; upstream's minimum."""


def plan(want: PodView | None, seen: Observed, now: float) -> tuple[Action, ...]:
    """Actions that may be started now, and at most one ``Wait`` for the next moment that matters by itself."""
    match lifecycle.stage(want, seen, now):
        case Stage.RUNNING:
            assert want is not None
            found = list(_run(want, seen, now))
        case Stage.ENDING:
            found = list(_end(want, seen, now))
        case Stage.RELEASING:
            found = list(_release(seen, now))
        case Stage.ENDED:
            found = list(_remove(want, seen))
    waits = [each.seconds for each in found if isinstance(each, Wait)]
    chosen: dict[str, Action] = {}
    for each in found:
        if not isinstance(each, Wait) and each.key not in seen.busy:
            chosen.setdefault(each.key, each)
    result = tuple(chosen.values())
    return (*result, Wait(max(0.01, min(waits)))) if waits else result


def next_backoff_s(last: ContainerState) -> float:
    """How long the attempt after ``last`` must wait once it has ended too: doubling, forgotten after a long run."""
    if last.exit is not None and last.exit.finished_at - last.started_at >= crash_backoff_reset_s:
        return crash_backoff_base_s
    return min(crash_backoff_cap_s, max(crash_backoff_base_s, last.backoff_s * 2))


def backing_off(want: PodView, container: ContainerView, seen: Observed, now: float) -> float:
    """Seconds until an ended container may run again (``CrashLoopBackOff`` while positive)."""
    last = seen.last(container.name)
    if last is None or last.exit is None or not lifecycle.restarts(want, container, last):
        return 0.0
    if last.exit.finished_at - last.started_at >= crash_backoff_reset_s or lifecycle.changed(container, last):
        return 0.0
    return max(0.0, last.exit.finished_at + last.backoff_s - now)


def _run(want: PodView, seen: Observed, now: float) -> Iterator[Action]:
    yield from _dependencies(want, seen, now)
    deadline = lifecycle.deadline_at(want, seen)
    if deadline is not None:
        yield Wait(max(0.0, deadline - now))
    if want.pause is not None:
        yield from _advance(want, want.pause, seen, now)
        holder = seen.last(PAUSE)
        if holder is None or not holder.running:
            return  # there is no PID namespace yet that they could join
    yield from _containers(want, seen, now)
    for each in want.ephemeral:
        yield from _advance(want, each, seen, now)


def _containers(want: PodView, seen: Observed, now: float) -> Iterator[Action]:
    settled = lifecycle.initialized(want, seen)
    for each in want.init:
        if each.role is Role.INIT:
            if settled or lifecycle.prepared(each, seen):
                yield from _clean(each, seen, now)
                continue
            yield from _advance(want, each, seen, now)
            break
        yield from _advance(want, each, seen, now)
        if not settled and not lifecycle.prepared(each, seen):
            break
    else:
        if settled:
            for each in want.main:
                yield from _advance(want, each, seen, now)


def _dependencies(want: PodView, seen: Observed, now: float) -> Iterator[Action]:
    if seen.sandbox is None or not seen.sandbox.ready:
        yield from _unless(seen.sandbox_failure, now, PrepareSandbox())
    elif not seen.sandbox.cleared:
        yield from _unless(seen.network_failure, now, AddNetwork())
    if seen.volumes is None:
        yield from _volumes(want, seen, now)
    for each in want.containers:
        if each.name in seen.images or not _will_start(want, each, seen, now):
            continue
        yield from _unless(seen.image_failures.get(each.name), now, PullImage(each.name, each.image, each.pull_policy))


def _volumes(want: PodView, seen: Observed, now: float) -> Iterator[Action]:
    missing = [each.view for each in image_volumes(want) if each.view.name not in seen.images]
    for each in missing:
        # Once containers have seen the volume, the image that it was made of is the one that is wanted.
        policy = "IfNotPresent" if seen.containers else each.pull_policy
        yield from _unless(seen.image_failures.get(each.name), now, PullImage(each.name, each.image, policy))
    if not missing:
        yield from _unless(seen.volumes_failure, now, SetupVolumes())


def _will_start(want: PodView, container: ContainerView, seen: Observed, now: float) -> bool:
    last = seen.last(container.name)
    if last is None:
        return True
    if last.exit is None:
        return False
    if last.started_at == 0:
        return True
    return _runs_again(want, container, last, seen) and backing_off(want, container, seen, now) <= 0


def _runs_again(want: PodView, container: ContainerView, last: ContainerState, seen: Observed) -> bool:
    """By its restart policy, or because an init container's work is lost with the sandbox that it was done in."""
    if container.role is Role.INIT and lifecycle.outdated(last, seen) and not lifecycle.initialized(want, seen):
        return True
    return lifecycle.restarts(want, container, last)


def _advance(want: PodView, container: ContainerView, seen: Observed, now: float) -> Iterator[Action]:
    yield from _clean(container, seen, now)
    last = seen.last(container.name)
    if last is None:
        yield from _create(container, seen, now, attempt=0, backoff_s=0.0)
    elif last.exit is None and last.started_at == 0:
        if seen.sandbox is not None and (seen.sandbox.cleared or container.role is Role.PAUSE):
            yield StartContainer(container.name, last.attempt)
    elif last.exit is None:
        yield from _running(want, container, last, seen, now)
    elif not last.reaped:
        return  # _clean reaps it first
    elif last.started_at == 0:
        yield RemoveContainer(container.name, last.attempt)
    elif _runs_again(want, container, last, seen):
        wait_s = backing_off(want, container, seen, now)
        if wait_s > 0:
            yield Wait(wait_s)
        else:
            backoff_s = 0.0 if lifecycle.changed(container, last) else next_backoff_s(last)
            yield from _create(container, seen, now, attempt=last.attempt + 1, backoff_s=backoff_s)


def _create(
    container: ContainerView, seen: Observed, now: float, *, attempt: int, backoff_s: float
) -> Iterator[Action]:
    if seen.volumes is None or (container.name not in seen.images and container.role is not Role.PAUSE):
        return
    if seen.sandbox is None or not seen.sandbox.ready:
        return
    if not seen.sandbox.address and container.shows_address:
        return
    yield from _unless(
        seen.container_failures.get(container.name), now, CreateContainer(container.name, attempt, backoff_s)
    )


def _running(
    want: PodView, container: ContainerView, state: ContainerState, seen: Observed, now: float
) -> Iterator[Action]:
    if lifecycle.changed(container, state):
        if now < seen.redefined_at + SETTLE_S:
            yield Wait(seen.redefined_at + SETTLE_S - now)
            return
        same_image = state.spec_hash in ("", container.spec_hash)
        why = "resize requires restart" if same_image else "definition changed, will be restarted"
        yield StopContainer(container.name, state.attempt, want.grace_s, f"Container {container.name} {why}")
        return
    if lifecycle.resized(container, state):
        failed = seen.container_failures.get(container.name)
        yield from _unless(failed, now, ResizeContainer(container.name, state.attempt))
    for kind in ("startup", "liveness"):
        probe = container.spec.get(f"{kind}Probe")
        if probe and seen.probes.get((state.id, kind)) is False:
            grace = probe.get("terminationGracePeriodSeconds", want.spec.get("terminationGracePeriodSeconds", 30))
            text = f"Container {container.name} failed {kind} probe, will be restarted"
            yield StopContainer(container.name, state.attempt, float(grace), text)
            return


def _clean(container: ContainerView, seen: Observed, now: float) -> Iterator[Action]:
    attempts = seen.containers.get(container.name, ())
    for each in attempts:
        if each.exit is not None and not each.reaped:
            yield from _unless(
                seen.container_failures.get(container.name), now, ReapContainer(container.name, each.attempt)
            )
    for each in attempts[:-2]:
        if each.reaped:
            yield RemoveContainer(container.name, each.attempt)


def _end(want: PodView | None, seen: Observed, now: float) -> Iterator[Action]:
    yield from _abandon(seen)
    if want is not None and want.deleting and not seen.drained:
        yield Drain()
        return
    living = {name: each[-1] for name, each in sorted(seen.containers.items()) if each and lifecycle.alive(each[-1])}
    sidecars = [each.name for each in want.init if each.role is Role.SIDECAR] if want is not None else []
    first = [name for name in living if name != PAUSE and name not in sidecars]
    if first:
        grace_s = want.grace_s if want is not None else seen.grace_s
        for name in first:
            yield StopContainer(name, living[name].attempt, grace_s, "")
        return
    # Sidecars end after the containers that they serve, the last one first, within what is left of the pod's time.
    for name in reversed(sidecars):
        if name in living and want is not None:
            yield StopContainer(name, living[name].attempt, _left_s(want, now), "")
            return
    if PAUSE in living:
        yield StopContainer(PAUSE, living[PAUSE].attempt, 0.0, "")


def _left_s(want: PodView, now: float) -> float:
    """What is left of the grace of a pod that is being deleted; its whole grace if it ended by itself."""
    if not want.deleting or want.grace_s == 0:
        return want.grace_s
    left_s = parse_rfc3339(str(want.metadata["deletionTimestamp"])) - now
    return min(want.grace_s, max(SIDECAR_GRACE_S_MIN, left_s))


def _release(seen: Observed, now: float) -> Iterator[Action]:
    yield from _abandon(seen)
    if seen.busy - {"sandbox", "drain"}:
        return  # nothing is taken away below an action that still runs
    unreaped = False
    for name, attempts in sorted(seen.containers.items()):
        for each in attempts:
            if not each.reaped:
                unreaped = True
                yield from _unless(seen.container_failures.get(name), now, ReapContainer(name, each.attempt))
    if not unreaped:
        yield from _unless(seen.sandbox_failure, now, ReleaseSandbox())


def _remove(want: PodView | None, seen: Observed) -> Iterator[Action]:
    if want is None and seen.on_disk and not seen.busy:
        yield RemovePod()


def _abandon(seen: Observed) -> Iterator[Action]:
    pointless = tuple(
        sorted(key for key in seen.busy if key.startswith(("pull:", "hook:")) or key in ("network", "volumes"))
    )
    if pointless:
        yield Abandon(pointless)


def _unless(failure: Failure | None, now: float, action: Action) -> Iterator[Action]:
    """``action``, unless it failed a moment ago: then the time until it may be tried again."""
    if failure is None or now >= failure.retry_at:
        yield action
    else:
        yield Wait(failure.retry_at - now)

r"""Where a pod is in its life. Pure: all branching on stage happens here.

::

    wanted   |<------------------ in the API, not deleting ------------------>|<- deleting, or gone ->|
             |                                                                |                       |
    RUNNING  |= images, volumes, network -> init -> containers (restarts) ====\
             |                                          deadline, all ended ---+-> ENDING: drain, preStop, signals
             |                                                                     RELEASING: network, namespaces,
             |                                                                                volumes, cgroups
    status   | Pending ........................ Running ...................... Succeeded | Failed | (unchanged)
             |                                                                     ENDED: logs stay while the API has
             |                                                                            the pod; then DELETE, remove

A pod never goes back to the left. A container that ended before it was started has never run.
"""

import json
from enum import StrEnum

from common.clock import parse_rfc3339
from spherelet import admission
from spherelet.model import PAUSE, ContainerState, ContainerView, Observed, PodView, Role


class Stage(StrEnum):
    """See the chart."""

    RUNNING = "running"
    ENDING = "ending"
    RELEASING = "releasing"
    ENDED = "ended"


def stage(want: PodView | None, seen: Observed, now: float) -> Stage:
    """The stage of a pod; ``want`` is None when the API has it no more."""
    if want is not None and not want.deleting and outcome(want, seen, now) is None:
        return Stage.RUNNING
    if any(alive(each) for attempts in seen.containers.values() for each in attempts):
        return Stage.ENDING
    if seen.sandbox is not None or seen.volumes is not None or _unreaped(seen):
        return Stage.RELEASING
    return Stage.ENDED


def outcome(want: PodView, seen: Observed, now: float) -> tuple[str, str, str] | None:
    """(phase, reason, message) once the pod has ended for good, else None."""
    phase = str(want.status.get("phase") or "")
    if phase in ("Succeeded", "Failed"):
        return phase, str(want.status.get("reason") or ""), str(want.status.get("message") or "")
    if seen.sandbox is None and not seen.containers and (refused := admission.refusal(want)) is not None:
        return "Failed", refused[0], f"Pod was rejected: {refused[1]}"
    own = _own_outcome(want, seen)
    at = deadline_at(want, seen)
    if at is not None and now >= at and (own is None or _last_end(want, seen) >= at):
        return "Failed", "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
    return own


def _own_outcome(want: PodView, seen: Observed) -> tuple[str, str, str] | None:
    for each in want.init:
        last = seen.last(each.name)
        if each.role is Role.INIT and ended(last) and not succeeded(last) and not restarts(want, each, last):
            return "Failed", "", ""
    lasts = [seen.last(each.name) for each in want.main]
    if not all(ended(last) and not restarts(want, each, last) for each, last in zip(want.main, lasts, strict=True)):
        return None
    return ("Succeeded" if all(succeeded(last) for last in lasts) else "Failed"), "", ""


def _last_end(want: PodView, seen: Observed) -> float:
    lasts = (seen.last(each.name) for each in want.init + want.main if each.role is not Role.SIDECAR)
    return max((last.exit.finished_at for last in lasts if last is not None and last.exit is not None), default=0.0)


def deadline_at(want: PodView, seen: Observed) -> float | None:
    """When ``activeDeadlineSeconds`` passes, once the pod has started."""
    limit = want.spec.get("activeDeadlineSeconds")
    started = want.status.get("startTime")
    if limit is None:
        return None
    if started:
        return parse_rfc3339(started) + float(limit)
    return seen.sandbox.created_at + float(limit) if seen.sandbox else None


def alive(state: ContainerState) -> bool:
    """Created or running: it has to be stopped before anything below it is taken away."""
    return state.exit is None


def inhabited(seen: Observed) -> bool:
    """Whether a container of the pod's author may still do something."""
    return any(alive(each) for name, attempts in seen.containers.items() if name != PAUSE for each in attempts)


def changed(container: ContainerView, state: ContainerState) -> bool:
    """Whether the pod's spec has changed since so that the container must be made anew: its image, or a resource
    whose ``resizePolicy`` says so."""
    if container.role not in (Role.MAIN, Role.SIDECAR):
        return False
    return state.spec_hash not in ("", container.spec_hash) or _must_restart_for(container, resized(container, state))


def resized(container: ContainerView, state: ContainerState) -> frozenset[str]:
    """Which of ``cpu`` and ``memory`` the spec has otherwise than the container."""
    if container.role not in (Role.MAIN, Role.SIDECAR) or state.resources in ("", container.resources):
        return frozenset()
    have, want = json.loads(state.resources), json.loads(container.resources)
    return frozenset(
        name for name in ("cpu", "memory") for kind in have if have[kind].get(name) != want[kind].get(name)
    )


def _must_restart_for(container: ContainerView, resources: frozenset[str]) -> bool:
    policies = {each["resourceName"]: each.get("restartPolicy") for each in container.spec.get("resizePolicy") or ()}
    return any(policies.get(name) == "RestartContainer" for name in resources)


def ended(state: ContainerState | None) -> bool:
    """It ran, and it is over."""
    return state is not None and state.exit is not None and state.started_at > 0


def succeeded(state: ContainerState | None) -> bool:
    """It ran to exit status 0."""
    return ended(state) and state is not None and state.exit is not None and state.exit.code == 0


def restarts(want: PodView, container: ContainerView, last: ContainerState | None) -> bool:
    """Whether an ended container is to run again, by role and ``restartPolicy``."""
    if container.role in (Role.SIDECAR, Role.PAUSE):
        return True
    if container.role is Role.EPHEMERAL:
        return False
    if last is not None and changed(container, last):
        return True
    if container.role is Role.INIT:
        return not succeeded(last) and want.restart_policy != "Never"
    if want.restart_policy == "OnFailure":
        return not succeeded(last)
    return want.restart_policy == "Always"


def initialized(want: PodView, seen: Observed) -> bool:
    """Init containers are through, and stay so once a main container has run, as long as the sandbox lasts."""
    if any((last := seen.last(each.name)) is not None and not outdated(last, seen) for each in want.main):
        return True
    return all(prepared(each, seen) for each in want.init)


def outdated(state: ContainerState, seen: Observed) -> bool:
    """Whether the attempt was made in a sandbox that is no more: what it prepared may be lost."""
    return seen.sandbox is not None and state.epoch != seen.sandbox.epoch


def prepared(container: ContainerView, seen: Observed) -> bool:
    """Whether an init container or sidecar lets the next container begin."""
    last = seen.last(container.name)
    if container.role is Role.SIDECAR:
        return last is not None and started(container, last, seen)
    return last is not None and succeeded(last) and not outdated(last, seen)


def started(container: ContainerView, state: ContainerState, seen: Observed) -> bool:
    """``containerStatuses[].started``: running, hook returned, startup probe passed."""
    if not state.running or container.name in seen.hooks_pending:
        return False
    return not container.spec.get("startupProbe") or seen.probes.get((state.id, "startup")) is True


def ready(container: ContainerView, state: ContainerState | None, seen: Observed) -> bool:
    """``containerStatuses[].ready``."""
    if state is None or container.role is Role.EPHEMERAL:
        return False
    if container.role is Role.INIT:
        return succeeded(state)
    if not started(container, state, seen):
        return False
    return not container.spec.get("readinessProbe") or seen.probes.get((state.id, "readiness")) is True


def _unreaped(seen: Observed) -> bool:
    return any(not each.reaped for attempts in seen.containers.values() for each in attempts)

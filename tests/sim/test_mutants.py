"""Planted bugs: each must be caught within a few seeds, or the checks are worth nothing."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from controller.network.barrier import Barrier
from controller.network.realization import Realization
from controller.reconcilers import daemonset, pods, statefulset
from controller.scheduler import binding
from controller.scheduler.binding import Binder
from controller.store.objects import Compare, Store
from nsx_agent.desired import ScopeStore
from nsx_agent.loop import Loop
from nsx_agent.state import Commit
from spherelet import plan as spherelet_plan
from spherelet.model import Sandbox
from tests.sim.checkers import Violation
from tests.sim.options import Options
from tests.sim.run import run_seed

SEEDS_MAX = 12
Plant = Callable[[pytest.MonkeyPatch], None]


def busy(options: Options) -> Options:
    """Much work and mild faults, whatever the seed would like."""
    return replace(
        options,
        hosts=3,
        steps=60,
        faults={"connection-cut": 2, "controller-crash": 1, "agent-crash": 2},
        workload={**dict.fromkeys(options.workload, 2), "deploy": 4, "policy": 4, "service": 3, "delete-pod": 4},
        pace_s=(0.0, 0.5, 3.0),
        kernel_delay_s=0.5,
        broker_delay_s=0.2,
        duplicates=0.05,
    )


def skip_the_in_sync_gate(patch: pytest.MonkeyPatch) -> None:
    """The agent takes over a scope although not everything has arrived."""

    def half_in_sync(self: ScopeStore) -> bool:
        return self._target is not None and len(self._arriving) * 2 >= self._target.count

    patch.setattr(ScopeStore, "in_sync", property(half_in_sync))


def bind_without_precondition(patch: pytest.MonkeyPatch) -> None:
    """Binding forgets that the pod must be as it was seen; every second bind is done again elsewhere."""
    original = Store.txn
    bind = Binder.bind
    rng = random.Random(0)

    async def unconditional(self: Store, compares: list[Compare], writes: list[object]) -> int:
        kept = [compare for compare in compares if "/core/pods/" not in compare.key]
        return await original(self, kept, writes)

    async def twice(self: Binder, namespace: str, name: str, host: str, *, uid: str | None = None) -> int:
        revision = await bind(self, namespace, name, host, uid=uid)
        pod = self._cache.get(binding.PODS, namespace, name)
        if pod is not None and rng.random() < 0.5 and not pod.fields.get("spec.nodeName"):
            others = [node.name for node in self._cache.list(binding.NODES) if node.name != host]
            return await bind(self, namespace, name, rng.choice(others), uid=uid)
        return revision

    patch.setattr(Store, "txn", unconditional)
    patch.setattr(Binder, "bind", twice)


def clear_too_early(patch: pytest.MonkeyPatch) -> None:
    """A pod may start before the other hosts know it."""
    patch.setattr(Barrier, "_may_start", lambda self, uid, revision: True)


def drain_too_early(patch: pytest.MonkeyPatch) -> None:
    """A pod counts as drained while load balancers still send to it."""
    patch.setattr(Barrier, "_may_stop", lambda self, uid: True)


def release_addresses_at_once(patch: pytest.MonkeyPatch) -> None:
    """Quarantine ends before the hosts have forgotten the address; so does every other wait for all of them."""
    patch.setattr(Realization, "reached", lambda self, scopes, revision: True)


def confirm_before_the_kernel(patch: pytest.MonkeyPatch) -> None:
    """The agent says that it is done, then does it."""
    original = Loop._record

    def early(self: Loop, commit: Commit) -> None:
        original(self, commit)
        self._acknowledge()

    patch.setattr(Loop, "_record", early)


def start_without_clearance(patch: pytest.MonkeyPatch) -> None:
    """spherelet starts containers as soon as the interface is there."""
    original = spherelet_plan._advance

    def hasty(want, container, seen, now):  # type: ignore[no-untyped-def]
        if seen.sandbox is not None:
            seen = replace(seen, sandbox=replace(seen.sandbox, cleared=True))
        return original(want, container, seen, now)

    assert Sandbox.__dataclass_fields__["cleared"]
    patch.setattr(spherelet_plan, "_advance", hasty)


def signal_without_draining(patch: pytest.MonkeyPatch) -> None:
    """spherelet does not ask whether load balancers have forgotten the pod."""
    original = spherelet_plan._end
    patch.setattr(spherelet_plan, "_end", lambda want, seen, now: original(want, replace(seen, drained=True), now))


def overlook_daemons_that_start(patch: pytest.MonkeyPatch) -> None:
    """A DaemonSet counts only pods that are ready as being there."""
    original = daemonset._places

    def overlooking(view, daemon_set, members):  # type: ignore[no-untyped-def]
        return original(view, daemon_set, [pod for pod in members if pods.is_ready(pod)])

    patch.setattr(daemonset, "_places", overlooking)


def replace_members_by_force(patch: pytest.MonkeyPatch) -> None:
    """A StatefulSet removes its pods from the API without waiting for their hosts."""
    original = statefulset._delete
    patch.setattr(statefulset, "_delete", lambda this, pod: replace(original(this, pod), grace_s=0))


@pytest.mark.parametrize(
    ("plant", "promise"),
    [
        (skip_the_in_sync_gate, "without holding it"),
        (bind_without_precondition, "was bound to"),
        (clear_too_early, "counts as cleared"),
        (drain_too_early, "counts as drained"),
        (release_addresses_at_once, "was released while"),
        (confirm_before_the_kernel, "confirm"),
        (start_without_clearance, "uncleared"),
        (signal_without_draining, "gets SIGTERM"),
        (overlook_daemons_that_start, "is made for"),
        (replace_members_by_force, "starts while another"),
    ],
)
def test_a_planted_bug_is_caught(plant: Plant, promise: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    for number in range(SEEDS_MAX):
        found = violation_of(number)
        if found:
            assert promise in found, f"caught by another check: {found}"
            return
    pytest.fail(f"not caught in {SEEDS_MAX} seeds")


def violation_of(seed: int) -> str:
    """The broken promise, empty if none was."""
    try:
        run_seed(seed, busy)
    except Violation as err:
        return str(err)
    return ""


@pytest.mark.parametrize("number", range(3))
def test_the_same_runs_are_clean_without_a_planted_bug(number: int) -> None:
    run_seed(number, busy)

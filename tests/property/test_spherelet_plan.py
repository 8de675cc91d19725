"""Plans that are interrupted anywhere still converge, and nothing is started in a pod that ends."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spherelet import lifecycle
from spherelet.lifecycle import Stage
from spherelet.model import (
    Abandon,
    Action,
    AddNetwork,
    ContainerState,
    CreateContainer,
    Drain,
    Exit,
    Image,
    Observed,
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
from spherelet.plan import plan

STEPS_MAX = 200


def a_pod(names: list[str], init: list[str], *, deleting: bool) -> PodView:
    metadata: dict[str, Any] = {"uid": "u", "name": "p", "namespace": "n"}
    if deleting:
        metadata["deletionTimestamp"] = "t"
    spec = {
        "containers": [{"name": each, "image": "i"} for each in names],
        "initContainers": [{"name": each, "image": "i"} for each in init],
    }
    return PodView({"metadata": metadata, "spec": spec})


def done(action: Action, seen: Observed, now: float, init: list[str]) -> Observed:
    """The model of ``apply``: what the world looks like once ``action`` has worked."""
    match action:
        case PullImage():
            return replace(seen, images={**seen.images, action.container: Image("i", "r", ("/l",))})
        case PrepareSandbox():
            return replace(seen, sandbox=Sandbox(True, "", False, now), on_disk=True)
        case AddNetwork():
            assert seen.sandbox is not None
            return replace(seen, sandbox=replace(seen.sandbox, address="10.0.0.1", cleared=True))
        case SetupVolumes():
            return replace(seen, volumes={})
        case CreateContainer():
            made = ContainerState(
                "u", action.container, action.attempt, f"{action.container}{action.attempt}", Path("/d"), "i", "r", "",
                now, pid=1, conmon_pid=1, backoff_s=action.backoff_s,
            )  # fmt: skip
            return _with(seen, made)
        case StartContainer():
            last = seen.last(action.container)
            assert last is not None
            ended = Exit(0, now, "Completed") if action.container in init else None
            return _with(seen, replace(last, started_at=now, exit=ended))
        case StopContainer():
            last = seen.last(action.container)
            assert last is not None
            return _with(seen, replace(last, exit=Exit(137, now, "Error"), pid=0))
        case ResizeContainer():
            return seen
        case ReapContainer():
            return _each(seen, action.container, action.attempt, lambda state: replace(state, reaped=True))
        case RemoveContainer():
            return _each(seen, action.container, action.attempt, lambda _: None)
        case Drain():
            return replace(seen, drained=True)
        case ReleaseSandbox():
            return replace(seen, sandbox=None, volumes=None)
        case RemovePod():
            return Observed()
        case Abandon() | Wait():
            return seen


def _with(seen: Observed, state: ContainerState) -> Observed:
    others = tuple(each for each in seen.containers.get(state.name, ()) if each.attempt != state.attempt)
    return replace(seen, containers={**seen.containers, state.name: (*others, state)})


def _each(seen: Observed, name: str, attempt: int, change: Any) -> Observed:
    changed = [change(each) if each.attempt == attempt else each for each in seen.containers.get(name, ())]
    return replace(seen, containers={**seen.containers, name: tuple(each for each in changed if each is not None)})


def settle(want: PodView | None, seen: Observed, init: list[str], choose: Any, now: float = 1000.0) -> Observed:
    for _ in range(STEPS_MAX):
        actions = plan(want, seen, now)
        real = [each for each in actions if not isinstance(each, Wait)]
        if not real:
            if not actions:
                return seen
            now += next(each.seconds for each in actions if isinstance(each, Wait))
            continue
        seen = done(choose(real), seen, now, init)
    raise AssertionError(f"no rest after {STEPS_MAX} steps: {plan(want, seen, now)}")


@given(
    names=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True),
    init=st.lists(st.sampled_from("xyz"), max_size=2, unique=True),
    prefix=st.integers(0, 25),
    data=st.data(),
)
def test_a_pod_interrupted_anywhere_runs_and_then_ends(
    names: list[str], init: list[str], prefix: int, data: st.DataObject
) -> None:
    want = a_pod(names, init, deleting=False)
    choose = lambda actions: data.draw(st.sampled_from(actions))  # noqa: E731
    seen = Observed()
    for _ in range(prefix):
        real = [each for each in plan(want, seen, 1000.0) if not isinstance(each, Wait)]
        if not real:
            break
        seen = done(choose(real), seen, 1000.0, init)

    running = settle(want, seen, init, choose)
    assert lifecycle.stage(want, running, 1000.0) is Stage.RUNNING
    assert all(last is not None and last.running for last in map(running.last, names))

    ending = a_pod(names, init, deleting=True)
    ended = settle(ending, seen, init, choose)
    assert lifecycle.stage(ending, ended, 1000.0) is Stage.ENDED
    assert settle(None, ended, init, choose) == Observed(drained=False) or not ended.on_disk


@given(names=st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True), prefix=st.integers(0, 20))
def test_nothing_is_started_in_an_ending_pod(names: list[str], prefix: int) -> None:
    want, ending = a_pod(names, [], deleting=False), a_pod(names, [], deleting=True)
    seen = Observed()
    for _ in range(prefix):
        real = [each for each in plan(want, seen, 1000.0) if not isinstance(each, Wait)]
        if not real:
            break
        seen = done(real[0], seen, 1000.0, [])
    for _ in range(STEPS_MAX):
        actions = plan(ending, seen, 1000.0)
        forbidden = (PullImage, PrepareSandbox, AddNetwork, SetupVolumes, CreateContainer, StartContainer)
        assert not any(isinstance(each, forbidden) for each in actions)
        if not actions:
            break
        seen = done(actions[0], seen, 1000.0, [])

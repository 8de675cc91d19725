"""A whole cluster in one virtual second after the other: one seed decides everything that happens in it.

Real: store, cache, API pipeline, reconcilers, scheduler, network controller, nsx-agent, spherelet's pod loop. Fake,
each held to the real one by a contract: etcd, broker, kernel, container runtime. Phases: faults on, with every check
at every step; then faults off, and all must converge within ``CONVERGE_S``.
"""

import asyncio
import contextlib
import random
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol

import structlog

from common.broker import CONTROLLER
from common.errors import SphereError
from controller.api.local import LocalClient
from controller.network.controller import NetworkController
from spherelet.model import ContainerState
from tests.sim.checkers import STEADY_S, Checkers, Violation
from tests.sim.controller import ControllerProcess
from tests.sim.fakes.broker import FakeBroker
from tests.sim.fakes.etcd import EtcdClient, EtcdOptions, EtcdServer
from tests.sim.host import Host
from tests.sim.options import Options
from tests.sim.virtual_loop import VirtualClock

RESTART_S = 1.0
CONVERGE_S = 900.0
SAMPLE_S = 0.25


class Process(Protocol):
    """Anything that runs until it is cancelled."""

    async def run(self) -> None: ...


class World:
    """``now`` is virtual seconds since the beginning; ``trace`` is what every process said, in order."""

    def __init__(self, seed: int, options: Options, folder: Path, group: asyncio.TaskGroup, trace: list[str]) -> None:
        self.options = options
        self.trace = trace
        self.clock = VirtualClock()
        self.rng = random.Random(f"world {seed}")
        self._group = group
        self._main = asyncio.current_task()
        self.violation: BaseException | None = None
        self.checkers = Checkers(self)
        self.etcd = EtcdServer()
        self.etcd.observers.append(self.checkers.on_commit)
        self.broker = FakeBroker(random.Random(f"broker {seed}"), options.duplicates, options.broker_delay_s)
        self.etcd_options = EtcdOptions(
            options.etcd_delay_s, options.watch_delay_s, options.lost_request, options.lost_answer
        )
        self._etcd_rng = random.Random(f"etcd {seed}")
        self._etcd_client: EtcdClient | None = None
        self.controller: ControllerProcess | None = None
        self.lives: dict[str, asyncio.Task[None]] = {}
        self._dying: set[str] = set()
        self._off: dict[str, float] = {}
        """Processes that stay down until then."""
        self._alive_since: dict[tuple[str, str], float] = {}
        self.hosts = [
            Host(
                number, folder, self.broker, lambda: self.controller, self.clock, options,
                random.Random(f"host {number} {seed}"), self.checkers.on_watermark,
            )
            for number in range(1, options.hosts + 1)
        ]  # fmt: skip

    def now(self) -> float:
        return self.clock.monotonic()

    @property
    def network(self) -> NetworkController | None:
        return self.controller.network if self.controller is not None else None

    def say(self, sentence: str) -> None:
        """What the world itself does, for the trace."""
        self.trace.append(f"{self.now():10.3f} world: {sentence}")

    def violate(self, err: BaseException) -> None:
        """End the run; the first violation counts."""
        if self.violation is None:
            self.violation = err
            self.say(f"VIOLATION {err}")
            if self._main is not None:
                self._main.cancel()

    # Processes

    def begin(self) -> None:
        """Power on."""
        self._supervise("controller", self._new_controller)
        for host in self.hosts:
            self._wire(host)
            self._supervise(f"agent {host.name}", host.new_agent)
            self._supervise(f"spherelet {host.name}", host.new_spherelet)
            self._group.create_task(host.keep_node())
        self._group.create_task(self._sample())

    def _wire(self, host: Host) -> None:
        def started(state: ContainerState) -> None:
            self.checkers.on_start(host, state)

        def signalled(state: ContainerState, number: int) -> None:
            self.checkers.on_signal(host, state, number)

        host.runtime.on_start, host.runtime.on_signal = started, signalled

    def _new_controller(self) -> ControllerProcess:
        if self._etcd_client is not None:
            self._etcd_client.dead = True
        self._etcd_client = EtcdClient(self.etcd, self.clock, self._etcd_rng, self.etcd_options)
        session = self.broker.session(CONTROLLER, CONTROLLER, self.clock)
        self._alive_since.clear()
        self.controller = ControllerProcess(self._etcd_client, lambda: session, self.clock, self._watch_flags)
        return self.controller

    def _watch_flags(self, network: NetworkController) -> None:
        """Show the planner's barrier flags to the checkers before they are set."""
        original = network.planner.set_port_state

        def watched(uid: str, *, cleared: bool, drained: bool) -> None:
            self.checkers.on_port_state(uid, cleared=cleared, drained=drained)
            original(uid, cleared=cleared, drained=drained)

        network.planner.set_port_state = watched  # type: ignore[method-assign]

    def _supervise(self, name: str, make: Callable[[], Process]) -> None:
        self._group.create_task(self._keep(name, make))

    async def _keep(self, name: str, make: Callable[[], Process]) -> None:
        """Start it again whenever it ends; anything but a failure that is meant to be is a bug."""
        while True:
            self._dying.discard(name)
            task = self.lives[name] = self._group.create_task(self._live(name, make))
            await asyncio.wait([task])
            await self.clock.sleep(max(RESTART_S, self._off.get(name, 0.0) - self.now()))

    async def _live(self, name: str, make: Callable[[], Process]) -> None:
        try:
            await make().run()
        except asyncio.CancelledError:
            self.say(f"{name} is gone")
        except BaseException as err:
            # Killed, it may still run into its own task groups, which are shutting down: the dead tell no tales.
            if name not in self._dying and not all(
                isinstance(each, SphereError | asyncio.CancelledError) for each in _leaves(err)
            ):
                self.violate(err)
            self.say(f"{name} ended: {[str(each) for each in _leaves(err)]}")

    def kill(self, name: str, down_s: float = 0.0) -> None:
        """A process dies where it stands, and stays away for at least ``down_s``."""
        self._off[name] = self.now() + down_s
        self._dying.add(name)
        session = next((host.session for host in self.hosts if name == f"agent {host.name}"), None)
        if session is not None:
            session.cut()  # no goodbye: the broker speaks the last will
        self.lives[name].cancel()
        if name == "controller" and self._etcd_client is not None:
            self._etcd_client.dead = True

    async def _sample(self) -> None:
        """Which hosts the controller has counted as alive and in which spans, without a break, since when."""
        while True:
            network = self.network
            for host in self.hosts:
                alive = network is not None and network.planner.alive(host.name)
                held = network.planner.span.namespaces(host.name) if network is not None and alive else frozenset()
                now = {(host.name, "cluster"), *((host.name, f"ns/{name}") for name in held)} if alive else set()
                for key in [key for key in self._alive_since if key[0] == host.name and key not in now]:
                    del self._alive_since[key]
                for key in sorted(now):
                    self._alive_since.setdefault(key, self.now())
            await self.clock.sleep(SAMPLE_S)

    def steady(self, host: str, scope: str = "cluster") -> bool:
        """Whether the controller has counted on the host to hold ``scope`` for a while."""
        since, network = self._alive_since.get((host, scope)), self.network
        if since is None or network is None or not network.planner.alive(host):
            return False
        return self.now() - since >= STEADY_S

    def steady_hosts(self) -> list[Host]:
        return [host for host in self.hosts if self.steady(host.name)]

    # The user

    def user(self) -> LocalClient | None:
        """A client of the API, None while there is none."""
        controller = self.controller
        return controller.client("kubernetes-admin") if controller is not None and controller.serving else None

    def quiet(self) -> None:
        """No more faults; what is broken is mended."""
        self.say("faults off")
        self.etcd_options.lost_answer = self.etcd_options.lost_request = 0.0
        self.etcd.restart_at(self.now())
        self.broker.start()
        for host in self.hosts:
            host.quiet()


def _leaves(err: BaseException) -> list[BaseException]:
    if isinstance(err, BaseExceptionGroup):
        return [leaf for each in err.exceptions for leaf in _leaves(each)]
    return [err]


class _OrderedTasks(dict[asyncio.Task[Any], None]):
    """A set of tasks that is gone through in the order in which they were added."""

    def add(self, task: asyncio.Task[Any]) -> None:
        self[task] = None

    def discard(self, task: asyncio.Task[Any]) -> None:
        self.pop(task, None)


@contextlib.contextmanager
def ordered_task_groups() -> Iterator[None]:
    """Task groups cancel their tasks in order: CPython keeps them in a set, whose order is that of addresses."""
    original = asyncio.TaskGroup.__init__

    def ordered(self: asyncio.TaskGroup) -> None:
        original(self)
        self._tasks = _OrderedTasks()  # type: ignore[attr-defined]

    asyncio.TaskGroup.__init__ = ordered  # type: ignore[method-assign]
    try:
        yield
    finally:
        asyncio.TaskGroup.__init__ = original  # type: ignore[method-assign]


@contextlib.contextmanager
def deterministic(seed: int, trace: list[str]) -> Iterator[None]:
    """Module-level randomness comes from the seed; log lines go to ``trace`` with virtual time."""
    before_state, before_uuid4, before_config = random.getstate(), uuid.uuid4, structlog.get_config()
    rng = random.Random(f"uuid {seed}")

    def collect(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        component, sentence = event.pop("component", ""), event.pop("event", "")
        rest = " ".join(f"{key}={value}" for key, value in sorted(event.items()) if key != "exc_info")
        if event.get("exc_info"):
            rest += f" {structlog.processors.format_exc_info(_logger, _method, {'exc_info': True})}"
        trace.append(f"{asyncio.get_running_loop().time():10.3f} {component}: {sentence} {rest}".rstrip())
        raise structlog.DropEvent

    random.seed(f"module {seed}")
    uuid.uuid4 = lambda: uuid.UUID(int=rng.getrandbits(128), version=4)  # type: ignore[assignment]
    structlog.configure(
        processors=[collect], wrapper_class=structlog.make_filtering_bound_logger(20), cache_logger_on_first_use=False
    )
    try:
        with ordered_task_groups():
            yield
    finally:
        random.setstate(before_state)
        uuid.uuid4 = before_uuid4
        structlog.configure(**before_config)


async def run_world(
    seed: int, options: Options, folder: Path, trace: list[str], story: Callable[[World], Coroutine[Any, Any, None]]
) -> World:
    """Run ``story`` in a world of its own. Raises ``Violation``, or the bug that ended a process."""
    world: World | None = None
    try:
        async with asyncio.TaskGroup() as group:
            world = World(seed, options, folder, group, trace)
            world.begin()
            await story(world)
            raise _Over
    except* _Over:
        pass
    except* Violation as err:
        raise _leaves(err)[0] from None
    except* asyncio.CancelledError:
        if world is None or world.violation is None:
            raise
    assert world is not None
    if world.violation is not None:
        raise world.violation
    return world


class _Over(Exception):
    """The story has been told."""


__all__ = ["Violation", "World", "deterministic", "run_world"]

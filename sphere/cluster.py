"""Bring the one-machine cluster up and down. Both converge, from a whole, half-made, crashed or absent cluster."""

import shutil
import time
from collections.abc import Callable

from common.errors import Retryable, Terminal
from sphere import api, census, cgroups, components, lock, machines, pki, preflight, topology, underlay
from sphere.images import build, load, recipes
from sphere.layout import Layout
from sphere.topology import Machine
from sphere.wanted import Wanted, read_wanted, write_wanted

READY_DEADLINE_S = 60.0
"""Counted anew from each host that is Ready: many hosts take longer than few."""
CRASHES_MAX = 4
"""A component that ended this often while the cluster was coming up does not work."""

Report = Callable[[str], None]


def up(layout: Layout, wanted: Wanted, report: Report) -> None:
    """Return when the API is ready and every node is Ready. Raises ``Terminal`` with cause and cure."""
    preflight.check(monitoring=wanted.monitoring)
    with lock.held("up"):
        lock.check_owner(layout)
        before = read_wanted(layout)
        if before is not None and not pki.has_authority(layout.pki):
            raise Terminal("the certificate authority was lost or ran out under a running cluster; `sphere down` first")
        if before is None:
            preflight.check_room(layout.run)
            if any(cgroups.members(path) for path in cgroups.remaining()):
                raise Terminal(
                    f"a cluster is up on this machine whose files in {layout.run} are lost; "
                    "clear it away first: sphere down"
                )
        if machines.pid_of(layout, topology.CONTROL) is None:
            preflight.check_port(topology.API_PORT)
            underlay.check_routes()
        lock.claim(layout)
        layout.run.mkdir(parents=True, exist_ok=True)
        write_wanted(layout, wanted)
        made = pki.ensure(layout.pki, pki.identities(wanted.hosts))
        report(f"certificates: {len(made)} made" if made else "certificates: kept")
        _remove_surplus(layout, wanted, report)
        underlay.create_bridge()
        underlay.add_blackholes()
        _start_missing(layout, wanted, report, made)
        api.write_kubeconfig(layout)
        _load_images(layout, wanted, report)
        _wait_ready(layout, wanted, report)


def _remove_surplus(layout: Layout, wanted: Wanted, report: Report) -> None:
    """Fewer hosts than before: the others lose their power and their state. Judged by what is there, not by what an
    earlier `up` was asked for: that one may have been interrupted."""
    kept = topology.hosts(wanted.hosts)
    for host in _known_machines(layout):
        if host.is_host and host not in kept:
            machines.stop(layout, host)
            shutil.rmtree(layout.state(host.name), ignore_errors=True)
            shutil.rmtree(layout.runtime(host.name), ignore_errors=True)
            report(f"{host.name}: removed")


def _start_missing(layout: Layout, wanted: Wanted, report: Report, renewed: tuple[str, ...]) -> None:
    """Start what is off. What runs is left alone, unless it holds one of the ``renewed`` identities."""
    if not underlay.is_connected(topology.outside()):
        underlay.connect(topology.outside())

    def start(machine: Machine) -> None:
        if machines.pid_of(layout, machine.name) is not None and underlay.is_connected(machine):
            start_stopped_components(layout, machine.name)
            parts = _components(layout, machine, wanted)
            machines.converge(layout, machine, parts)
            for part in parts:
                if any(part.uses(identity) for identity in renewed):
                    machines.ask(layout, machine.name, "kill", part.name)
                    report(f"{machine.name}: {part.name} takes its new certificate")
            return
        start_machine(layout, machine, wanted)
        report(f"{machine.name}: started")

    machines.each([topology.control(), *topology.hosts(wanted.hosts)], start)


def start_machine(layout: Layout, machine: Machine, wanted: Wanted) -> None:
    """Power ``machine`` on."""
    machines.start(layout, machine, _components(layout, machine, wanted))


def _components(layout: Layout, machine: Machine, wanted: Wanted) -> tuple[components.Component, ...]:
    return components.of(machine, layout, monitoring=wanted.monitoring, host_count=wanted.hosts)


def start_stopped_components(layout: Layout, name: str) -> None:
    """Undo `host stop --component`."""
    for component in machines.ask(layout, name, "status")["components"]:
        if not component["wanted"]:
            machines.ask(layout, name, "start", component["name"])


def _load_images(layout: Layout, wanted: Wanted, report: Report) -> None:
    """Images that every host is promised to have."""
    for recipe in recipes.EVERYWHERE:
        path = build.ensure(recipe)
        lacking = load.lacking(layout, topology.hosts(wanted.hosts), recipe.name)
        if lacking:
            load.load(layout, path, lacking)
            report(f"image {recipe.name}: on {', '.join(host.name for host in lacking)}")


def _wait_ready(layout: Layout, wanted: Wanted, report: Report) -> None:
    names = [host.name for host in topology.hosts(wanted.hosts)]
    deadline = time.monotonic() + READY_DEADLINE_S
    reported: set[str] = set()
    problem = "nothing answered yet"
    restarts = _restarts(layout, [topology.CONTROL, *names])
    while time.monotonic() < deadline:
        _raise_crash_loop(layout, [topology.CONTROL, *names], restarts)
        try:
            known = api.node_readiness(layout)
            ready = {name for name in names if known.get(name)}
            if len(ready) == len(names):
                _forget_surplus(layout, known.keys() - ready)
        except Retryable as err:
            problem = str(err)
        else:
            if "api" not in reported:
                reported.add("api")
                report(f"API: ready at https://127.0.0.1:{topology.API_PORT}")
            for name in sorted(ready - reported):
                reported.add(name)
                report(f"{name}: Ready")
                deadline = time.monotonic() + READY_DEADLINE_S
            missing = [name for name in names if name not in ready]
            if not missing:
                return
            problem = f"not Ready: {', '.join(missing)}"
        time.sleep(0.1)
    raise Terminal(
        f"the cluster did not become ready: nothing came up for {READY_DEADLINE_S:.0f} s ({problem}); "
        f"logs are in {layout.run / 'logs'}, `sphere status` shows each component, `sphere down` clears up"
    )


def _forget_surplus(layout: Layout, surplus: set[str]) -> None:
    """Hosts that are no more leave the API; what ran there is started elsewhere without waiting for them."""
    for host in topology.hosts(topology.HOSTS_MAX):
        if host.name in surplus:
            api.delete(layout, f"/api/v1/nodes/{host.name}")


def _restarts(layout: Layout, names: list[str]) -> dict[tuple[str, str], int]:
    """How often each component was restarted so far: what a working one went through earlier is no crash loop."""
    return {
        (name, component["name"]): component["restarts"]
        for name in names
        for component in machines.ask(layout, name, "status")["components"]
    }


def _raise_crash_loop(layout: Layout, names: list[str], before: dict[tuple[str, str], int]) -> None:
    for name in names:
        for component in machines.ask(layout, name, "status")["components"]:
            if component["restarts"] - before.get((name, component["name"]), 0) >= CRASHES_MAX:
                log = layout.logs(name) / f"{component['name']}.log"
                raise Terminal(
                    f"{component['name']} on {name} keeps ending (status {component['exit_status']}); "
                    f"the end of {log}:\n{machines.tail(log)}\n"
                    "correct what it complains about and run `sphere up` again, or clear up with `sphere down`"
                )


def down(layout: Layout, report: Report, *, keep_state: bool = False) -> None:
    """Remove everything of the cluster from the box, even half-made. Raises ``Terminal`` naming what could not be."""
    preflight.require_root()
    with lock.held("down"):
        lock.check_owner(layout)
        known = _known_machines(layout)
        # The control machine last: hosts may still have something to say while they stop.
        for group in ([one for one in known if one.is_host], [one for one in known if not one.is_host]):
            machines.each(group, lambda machine: machines.stop(layout, machine))
        # Machines whose files are lost (`git clean`) could not be asked to stop.
        for path in cgroups.remaining():
            cgroups.kill(path)
        underlay.remove_all(underlay.ours())
        underlay.remove_blackholes()
        cgroups.remove_all()
        _remove_files(layout, keep_state=keep_state)
        left = census.leftovers(layout)
        if keep_state:
            left = [line for line in left if not line.startswith("file ")]
        if left:
            raise Terminal(
                "down could not remove:\n  - " + "\n  - ".join(left) + "\nremove these by hand, and run it again"
            )
        lock.release()
    report("nothing is left but keys and logs in " + str(layout.run))


def _known_machines(layout: Layout) -> list[Machine]:
    """Machines that left any trace: a runtime directory or a network namespace."""
    directory = layout.run / "machines"
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    names |= {name.removeprefix("sphere-") for name in underlay.ours()}
    return [machine for machine in topology.machines(topology.HOSTS_MAX) if machine.name in names]


def _remove_files(layout: Layout, *, keep_state: bool) -> None:
    state = {layout.run / "hosts", layout.state(topology.CONTROL)} if keep_state else set()
    for path in census.runtime_files(layout):
        if path in state:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

"""`sphere host ...`."""

import os
import socket
import sys

import click
from click.shell_completion import CompletionItem

from common.errors import Terminal
from sphere import lock, machines, preflight, topology
from sphere.cli.output import output_option, show
from sphere.layout import PROJECT, Layout
from sphere.topology import Machine
from sphere.wanted import Wanted, read_wanted


class ComponentName(click.ParamType[str]):
    """Name of a component of the machine that the argument before names."""

    name = "component"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # Behind the option whose value is asked for, click has not made a parameter of the argument yet.
        machine = ctx.params.get("host") or next(iter(ctx.args), "")
        names = CONTROL_COMPONENTS if machine == topology.CONTROL else HOST_COMPONENTS
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


HOST_COMPONENTS = ("spherelet", "nsx-agent", "containerd", "unbound")
CONTROL_COMPONENTS = ("sphere-controller", "etcd", "mosquitto")
component_option = click.option(
    "--component",
    metavar="NAME",
    type=ComponentName(),
    help=f"Only this component: {', '.join(HOST_COMPONENTS)}; of `control`: {', '.join(CONTROL_COMPONENTS)}.",
)


class HostName(click.ParamType[str]):
    """Name of a machine of the cluster."""

    name = "host"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            names = [machine.name for machine in _machines(Layout.default())]
        except Terminal:
            names = []  # no place for its message
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _machines(layout: Layout) -> tuple[Machine, ...]:
    wanted = read_wanted(layout)
    return () if wanted is None else topology.machines(wanted.hosts)


def _find(layout: Layout, name: str) -> Machine:
    known = _machines(layout)
    if not known:
        raise Terminal("no cluster is up; start one with `sphere up`")
    for machine in known:
        if machine.name == name:
            return machine
    raise Terminal(f"no machine {name!r}; there are: {', '.join(one.name for one in known)}")


@click.group()
def host() -> None:
    """List, enter, stop, start and kill hosts. The machines `control` and `outside` are taken as well."""


@host.command("list")
@output_option
def list_(output: str) -> None:
    """List hosts with their power and the readiness of their nodes.

    \b
    Examples:
      sphere host list
      sphere host list -o json
    """
    from sphere import status as inquiry

    layout = Layout.default()
    if read_wanted(layout) is not None:
        preflight.require_root()
    rows = inquiry.host_rows(layout)
    show(rows, output)
    if not rows:
        click.echo("no cluster is up; start one with `sphere up`", err=True)


@host.command(
    "exec",
    short_help="Run a command inside the namespaces of a host.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("host", type=HostName())
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND inside the namespaces of HOST; its exit status is handed on.

    \b
    Examples:
      sphere host exec host-1 -- nft list ruleset
      sphere host exec outside -- ping -c 1 172.30.0.11
      sphere host exec host-2 -- bash
    """
    preflight.require_root()
    layout = Layout.default()
    _find(layout, host)
    argv = machines.enter_argv(layout, host, command)
    os.execvp(argv[0], argv)


@host.command("forward", short_help="Make a port of a host reachable at 127.0.0.1 here.")
@click.argument("host", type=HostName())
@click.argument("port", metavar="[ADDRESS:]PORT")
@click.option("--local", type=click.IntRange(1, 65535), help="Port of 127.0.0.1 here; the same as there if not given.")
def forward(host: str, port: str, local: int | None) -> None:
    """Make PORT of HOST reachable at 127.0.0.1 here, until interrupted.

    ADDRESS is HOST's own in the underlay if not given.

    \b
    Examples:
      sphere host forward control 9090
      sphere host forward control 127.0.0.1:2381 --local 12381
    """
    preflight.require_root()
    layout = Layout.default()
    machine = _find(layout, host)
    address, _, number = port.rpartition(":")
    if not number.isdigit() or not 0 < int(number) < 65536:
        raise Terminal(f"{port}: give PORT or ADDRESS:PORT with a port from 1 to 65535")
    try:
        listener = socket.create_server(("127.0.0.1", local or int(number)))
    except OSError as err:
        raise Terminal(f"cannot listen on 127.0.0.1:{local or number}: {err.strerror}; choose another --local") from err
    listener.set_inheritable(True)
    command = (f"PYTHONPATH={PROJECT}", sys.executable, "-m", "sphere.relay")
    target = (str(listener.fileno()), address or str(machine.address), number)
    argv = machines.enter_argv(layout, host, ["env", *command, *target])
    click.echo(f"127.0.0.1:{local or number} is port {number} of {host}; Ctrl-C ends it", err=True)
    os.execvp(argv[0], argv)


@host.command("stop")
@click.argument("host", type=HostName())
@component_option
def stop(host: str, component: str | None) -> None:
    """Shut HOST down in order, or stop one of its components. `start` brings it back; nothing else does.

    \b
    Examples:
      sphere host stop host-2
      sphere host stop host-2 --component nsx-agent
    """
    preflight.require_root()
    layout = Layout.default()
    machine = _find(layout, host)
    if component:
        machines.ask(layout, host, "stop", component)
    else:
        with lock.held(f"host stop {host}"):
            machines.stop(layout, _with_power(machine))
    click.echo(f"{host}{'/' + component if component else ''}: stopped")


@host.command("start")
@click.argument("host", type=HostName())
@component_option
def start(host: str, component: str | None) -> None:
    """Start HOST, or a component of it that was stopped.

    \b
    Examples:
      sphere host start host-2
      sphere host start host-2 --component nsx-agent
    """
    from sphere import cluster

    preflight.require_root()
    layout = Layout.default()
    machine = _with_power(_find(layout, host))
    wanted = read_wanted(layout) or Wanted()
    if component:
        machines.ask(layout, host, "start", component)
    else:
        with lock.held(f"host start {host}"):
            if machines.pid_of(layout, host) is None:
                cluster.start_machine(layout, machine, wanted)
            else:
                cluster.start_stopped_components(layout, host)
    click.echo(f"{host}{'/' + component if component else ''}: started")


@host.command("kill", short_help="Cut the power of a host, or kill a component of it.")
@click.argument("host", type=HostName())
@component_option
def kill(host: str, component: str | None) -> None:
    """Cut the power of HOST, or kill a component of it (its supervisor restarts it at once).

    \b
    Examples:
      sphere host kill host-3
      sphere host kill host-1 --component spherelet
    """
    preflight.require_root()
    layout = Layout.default()
    machine = _find(layout, host)
    if component:
        machines.ask(layout, host, "kill", component)
    else:
        with lock.held(f"host kill {host}"):
            machines.kill(layout, _with_power(machine))
    click.echo(f"{host}{'/' + component if component else ''}: killed")


def _with_power(machine: Machine) -> Machine:
    if machine.name == topology.OUTSIDE:
        raise Terminal("`outside` is only a network; it has nothing to stop or start")
    return machine

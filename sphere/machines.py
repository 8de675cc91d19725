"""Start, stop, kill and ask machines. A machine is a supervisor (PID 1 of a PID namespace) and what it started."""

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import Terminal
from sphere import cgroups, topology, underlay
from sphere.commands import run
from sphere.layout import PROJECT, Layout
from sphere.topology import Machine

if TYPE_CHECKING:  # at run time it would cost each completion the import of what renders the config files
    from sphere.components import Component

STOP_DEADLINE_S = 10.0
KILL_DEADLINE_S = 10.0
CONTROL_TIMEOUT_S = 3.0
LOG_LINES = 12


def pid_of(layout: Layout, name: str) -> int | None:
    """PID of the machine's supervisor in the box's own PID namespace; None when it does not run.

    The file of an earlier boot, or of a machine that lost its power, names a PID that is free or another process's:
    the start time tells.
    """
    try:
        pid, started = (layout.runtime(name) / "pid").read_text().split()
    except (OSError, ValueError):
        return None
    return int(pid) if _start_time(int(pid)) == started else None


def _start_time(pid: int) -> str | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rsplit(")", 1)[1].split()
    return None if fields[0] in "ZX" else fields[19]


def start(layout: Layout, machine: Machine, components: Sequence["Component"]) -> None:
    """Bring ``machine`` up from nothing: wire, files, supervisor. Its earlier self must be gone."""
    kill(layout, machine)
    underlay.connect(machine)
    runtime, logs = layout.runtime(machine.name), layout.logs(machine.name)
    for directory in (runtime, logs, layout.state(machine.name)):
        directory.mkdir(parents=True, exist_ok=True)
    for component in components:
        write_files(component)
    spec = runtime / "machine.json"
    spec.write_text(json.dumps(_spec(layout, machine, components), indent=2))
    argv = [sys.executable, "-E", "-s", "-S", "-m", "sphere.supervisor.launch", str(spec)]
    pid = int(run(["env", "-C", str(PROJECT), *argv], task=f"cannot make machine {machine.name}"))
    (runtime / "pid").write_text(f"{pid} {_start_time(pid)}")


def write_files(component: "Component") -> None:
    """Directories and config files of ``component``; files that carry state are left alone."""
    for directory in component.directories:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, text in component.files.items():
        path.write_text(text)
    for path, text in component.initial.items():
        if not path.exists():
            path.write_text(text)
            path.chmod(0o600)


def _spec(layout: Layout, machine: Machine, components: Sequence["Component"]) -> dict[str, Any]:
    runtime = layout.runtime(machine.name)
    etc = {
        "hosts": f"127.0.0.1 localhost\n{machine.address} {machine.name}\n",
        "hostname": f"{machine.name}\n",
        "resolv.conf": f"nameserver {topology.DNS_ADDRESS}\n",
    }
    binds: dict[str, str] = {}
    for name, text in etc.items():
        (runtime / name).write_text(text)
        if Path("/etc", name).exists():
            binds[str(runtime / name)] = str(Path("/etc", name).resolve())
    return {
        "machine": machine.name,
        "netns": str(underlay.netns_path(machine.netns)),
        "cgroup": f"{machine.cgroup}/system",
        "hugetlb_v1": cgroups.needs_hugetlb_v1(),
        "listen": [["127.0.0.1", topology.API_PORT]] if any(one.listens for one in components) else [],
        "binds": binds,
        "log_dir": str(layout.logs(machine.name)),
        "control_socket": str(runtime / "control.sock"),
        "components": [_component_spec(one) for one in components],
    }


def _component_spec(one: "Component") -> dict[str, Any]:
    return {"name": one.name, "argv": one.argv, "env": dict(one.env), "cwd": "/", "listen": one.listens}


def converge(layout: Layout, machine: Machine, components: Sequence["Component"]) -> None:
    """Let a running ``machine`` have ``components``: add, remove and restart what differs, and nothing else.

    A component that has to listen on the box's socket cannot be added: the socket is made with the machine.
    """
    present = {one["name"] for one in ask(layout, machine.name, "status")["components"]}
    for surplus in sorted(present - {one.name for one in components}):
        ask(layout, machine.name, "remove", surplus)
    for component in components:
        if component.name not in present:
            write_files(component)
            ask(layout, machine.name, "add", spec=_component_spec(component))
        elif component.renewable and any(not _holds(path, text) for path, text in component.files.items()):
            write_files(component)
            ask(layout, machine.name, "kill", component.name)


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def stop(layout: Layout, machine: Machine) -> None:
    """Orderly shutdown: components in reverse order, then the machine; a machine that does not end is killed."""
    pid = pid_of(layout, machine.name)
    if pid is not None:
        _signal(pid, signal.SIGTERM)
        _wait_gone(layout, machine.name, STOP_DEADLINE_S)
    kill(layout, machine)


def kill(layout: Layout, machine: Machine) -> None:
    """A power cut: all processes die at once, and with them mounts, sockets, and the kernel's state of its network."""
    pid = pid_of(layout, machine.name)
    if pid is not None:
        _signal(pid, signal.SIGKILL)
        if not _wait_gone(layout, machine.name, KILL_DEADLINE_S):
            raise Terminal(
                f"{machine.name} (pid {pid}) did not die within {KILL_DEADLINE_S:.0f} s of SIGKILL; "
                "a process of it hangs in the kernel: see `ps -eo pid,stat,wchan,args`"
            )
    underlay.disconnect(machine.netns)
    runtime = layout.runtime(machine.name)
    for name in ("pid", "control.sock"):
        (runtime / name).unlink(missing_ok=True)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _wait_gone(layout: Layout, name: str, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while pid_of(layout, name) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ask(
    layout: Layout, name: str, op: str, component: str = "", *, spec: dict[str, Any] | None = None
) -> dict[str, Any]:
    """One request to the machine's supervisor. Raises ``Terminal`` when it does not run or refuses."""
    if pid_of(layout, name) is None:
        raise Terminal(f"machine {name} does not run; start it with `sphere host start {name}` or `sphere up`")
    directory = os.open(layout.runtime(name), os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(CONTROL_TIMEOUT_S)
            # Through the descriptor: the path of a socket is limited to 108 bytes.
            connection.connect(f"/proc/self/fd/{directory}/control.sock")
            connection.sendall(json.dumps({"op": op, "component": component, "spec": spec}).encode())
            reply: dict[str, Any] = json.loads(_read_all(connection))
    except (OSError, ValueError) as err:
        raise Terminal(f"the supervisor of {name} does not answer: {err}; see {layout.logs(name)}") from err
    finally:
        os.close(directory)
    if not reply["ok"]:
        raise Terminal(reply["message"])
    return reply


def _read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def enter_argv(layout: Layout, name: str, command: Sequence[str]) -> list[str]:
    """Command line that runs ``command`` inside the machine's namespaces."""
    if name == topology.OUTSIDE:
        path = underlay.netns_path(topology.outside().netns)
        if not path.exists():
            raise Terminal("the cluster is not up; start it with `sphere up`")
        # Not `ip netns exec`, which would show another /sys, without cgroups.
        return ["nsenter", f"--net={path}", "--", *command]
    pid = pid_of(layout, name)
    if pid is None:
        raise Terminal(f"machine {name} does not run; start it with `sphere host start {name}` or `sphere up`")
    return ["nsenter", "--target", str(pid), "--mount", "--uts", "--net", "--pid", "--", "env", "-C", "/", *command]


def each(targets: Sequence[Machine], action: Callable[[Machine], None]) -> None:
    """Run ``action`` on all machines at the same time; the first failure is raised after all have ended."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        futures = [pool.submit(action, machine) for machine in targets]
    for future in futures:
        future.result()


def tail(log: Path, lines: int = LOG_LINES) -> str:
    """The last ``lines`` of ``log``, indented."""
    try:
        text = log.read_text(errors="replace")[-8192:]
    except OSError:
        return "    (no log)"
    return "\n".join(f"    {line[:500]}" for line in text.splitlines()[-lines:])

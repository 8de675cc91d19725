"""Machines with real namespaces: how they are made, how they die, and what is left."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import Terminal
from sphere import cgroups, machines, underlay
from sphere.commands import run
from sphere.components import Component
from sphere.layout import Layout
from sphere.topology import Machine, host

pytestmark = pytest.mark.integration

NUMBER = 49
"""A host that no cluster of a test has."""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[Layout, Machine]]:
    """A machine to start, and its layout; all of it is removed afterwards. A present cluster is not touched."""
    had_bridge = "sphere-underlay" in underlay.ours()
    layout, one = Layout(tmp_path), host(NUMBER)
    underlay.create_bridge()
    yield layout, one
    machines.kill(layout, one)
    for parent in cgroups.remaining():
        cgroups.remove(parent / one.name)
    if not had_bridge:
        underlay.disconnect("sphere-underlay")
        cgroups.remove_all()


SLEEP = Component("sleeper", ("sh", "-c", "mount -t tmpfs tsphere-mark /mnt; sleep 1000 & exec sleep 2000"))


def _inside(layout: Layout, machine: Machine, *command: str) -> str:
    return run(machines.enter_argv(layout, machine.name, command))


def _until(condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return value


def test_a_machine_is_a_world_of_its_own(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    machines.start(layout, one, [SLEEP])
    assert _inside(layout, one, "hostname").strip() == one.name
    assert f"{one.address}/24" in _inside(layout, one, "ip", "-brief", "address", "show", "eth0")
    assert sorted(_inside(layout, one, "ls", "/sys/class/net").split()) == ["eth0", "lo"]
    assert "sphere.supervisor" in _inside(layout, one, "cat", "/proc/1/cmdline")
    assert _inside(layout, one, "cat", "/etc/hostname").strip() == one.name
    assert os.uname().nodename != one.name


def test_cgroups_are_visible_and_those_of_the_machine_are_below_its_parent(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    machines.start(layout, one, [SLEEP])
    own = _inside(layout, one, "cat", "/proc/1/cgroup")
    paths = {line.split(":", 2)[2] for line in own.splitlines()}
    assert paths == {f"{one.cgroup}/system"}
    listed = _inside(layout, one, "ls", "/sys/fs/cgroup").split()
    assert "cgroup.controllers" in listed or {"memory", "pids", "cpu", "hugetlb"} <= set(listed)


def test_a_power_cut_takes_everything(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    machines.start(layout, one, [SLEEP])
    _until(lambda: "tsphere-mark /mnt" in _inside(layout, one, "cat", "/proc/mounts"))
    pid = machines.pid_of(layout, one.name)
    assert pid is not None
    procs = next(iter(cgroups.remaining())) / one.name / "system" / "cgroup.procs"
    _until(lambda: len(procs.read_text().split()) == 3)
    machines.kill(layout, one)
    assert machines.pid_of(layout, one.name) is None
    assert procs.read_text() == ""
    assert one.netns not in underlay.ours()
    assert "tsphere-mark" not in Path("/proc/self/mounts").read_text()
    assert not underlay.is_connected(one)


def test_it_starts_again_after_a_power_cut(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    machines.start(layout, one, [SLEEP])
    (layout.state(one.name) / "kept").write_text("x")
    pid = machines.pid_of(layout, one.name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    _until(lambda: machines.pid_of(layout, one.name) is None)
    with pytest.raises(Terminal, match="does not run"):
        machines.ask(layout, one.name, "status")
    machines.start(layout, one, [SLEEP])
    _until(lambda: machines.ask(layout, one.name, "status")["components"][0]["pid"])
    assert (layout.state(one.name) / "kept").exists()


def test_orderly_stop(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    script = f"trap 'echo bye > {layout.run}/bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    machines.start(layout, one, [Component("polite", ("sh", "-c", script))])
    log = layout.logs(one.name) / "polite.log"
    _until(lambda: log.exists() and "up" in log.read_text())
    machines.stop(layout, one)
    assert (layout.run / "bye").read_text() == "bye\n"
    assert machines.pid_of(layout, one.name) is None


def test_pid_file_of_another_boot_is_not_believed(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    layout.runtime(one.name).mkdir(parents=True)
    (layout.runtime(one.name) / "pid").write_text(f"{os.getpid()} 1")
    assert machines.pid_of(layout, one.name) is None
    machines.start(layout, one, [SLEEP])
    assert machines.pid_of(layout, one.name) not in (None, os.getpid())


def test_the_machines_copy_of_mounts_holds_no_other_namespace(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    run(["ip", "netns", "add", "tsphere-other"])
    try:
        machines.start(layout, one, [SLEEP])
        assert "tsphere-other" not in _inside(layout, one, "cat", "/proc/mounts")
    finally:
        run(["ip", "netns", "delete", "tsphere-other"])


def test_a_machine_whose_files_are_lost_can_still_be_ended(machine: tuple[Layout, Machine]) -> None:
    layout, one = machine
    machines.start(layout, one, [SLEEP])
    pid = machines.pid_of(layout, one.name)
    own = [parent / one.name for parent in cgroups.remaining()]
    _until(lambda: any(len(cgroups.members(path)) == 3 for path in own))
    shutil.rmtree(layout.runtime(one.name))
    assert machines.pid_of(layout, one.name) is None
    for path in own:
        cgroups.kill(path)
    assert not any(cgroups.members(path) for path in own)
    assert not Path(f"/proc/{pid}/exe").exists()

"""What a cluster has on the box. After `down` there must be nothing; this says what there is."""

import os
from pathlib import Path

from sphere import cgroups, topology, underlay
from sphere.layout import Layout


def leftovers(layout: Layout) -> list[str]:
    """One line for each thing of a cluster that exists, in the box's own namespaces. Empty: nothing is left."""
    return [
        *(f"network namespace {name}" for name in underlay.ours()),
        *(f"route: blackhole {route}" for route in underlay.blackholes()),
        *(f"cgroup {path}" for path in cgroups.remaining()),
        *(f"mount {path}" for path in _mounts(layout)),
        *(f"process {line}" for line in _processes(layout)),
        *(f"file {path}" for path in runtime_files(layout) if path.exists()),
    ]


def runtime_files(layout: Layout) -> tuple[Path, ...]:
    """Parts of the run directory that must not outlive the cluster; keys and logs may."""
    machines, hosts = layout.run / "machines", layout.run / "hosts"
    return (layout.kubeconfig, layout.cluster, machines, hosts, layout.state(topology.CONTROL))


def _mounts(layout: Layout) -> list[str]:
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        targets = [line.split()[1] for line in mounts]
    ours = (str(layout.run) + "/", f"{underlay.NETNS_DIR}/sphere-")
    return sorted(target for target in targets if target.startswith(ours))


def _processes(layout: Layout) -> list[str]:
    """Processes in a cgroup or with a command line of ours."""
    found = []
    state = (str(layout.run / "hosts").encode(), str(layout.run / "control").encode(), b"sphere.supervisor")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            groups = (entry / "cgroup").read_text()
            state_letter = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state_letter in "ZX":
            continue  # dead; whoever inherited it has yet to collect it
        in_ours = any(line.split(":", 2)[2].startswith(topology.CGROUP_ROOT + "/") for line in groups.splitlines())
        if in_ours or any(mark in command for mark in state):
            found.append(f"{entry.name}: {command.replace(bytes(1), b' ').decode(errors='replace').strip()[:120]}")
    return found

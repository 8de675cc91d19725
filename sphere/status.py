"""What runs, asked of supervisors and of the API."""

from typing import Any

from common.errors import Retryable, Terminal
from sphere import api, machines, topology
from sphere.layout import Layout
from sphere.wanted import read_wanted


def component_rows(layout: Layout) -> list[dict[str, Any]]:
    """One row for each component of each machine."""
    wanted = read_wanted(layout)
    if wanted is None:
        return []
    rows: list[dict[str, Any]] = []
    for machine in (topology.control(), *topology.hosts(wanted.hosts)):
        try:
            components = machines.ask(layout, machine.name, "status")["components"]
        except Terminal:
            rows.append(_row(machine.name, "", "off", 0, 0, 0.0))
            continue
        for one in components:
            state = "running" if one["pid"] else "restarting" if one["wanted"] else "stopped"
            rows.append(_row(machine.name, one["name"], state, one["pid"], one["restarts"], one["uptime_s"]))
    return rows


def _row(machine: str, component: str, state: str, pid: int, restarts: int, uptime_s: float) -> dict[str, Any]:
    return {
        "machine": machine,
        "component": component,
        "state": state,
        "pid": pid or None,
        "restarts": restarts,
        "uptime_s": uptime_s,
    }


def host_rows(layout: Layout) -> list[dict[str, Any]]:
    """One row for each host: power, address, readiness of its node."""
    wanted = read_wanted(layout)
    if wanted is None:
        return []
    ready = _readiness(layout)
    return [
        {
            "host": host.name,
            "address": str(host.address),
            "power": "on" if machines.pid_of(layout, host.name) else "off",
            "pid": machines.pid_of(layout, host.name),
            "ready": {True: "True", False: "False", None: "Unknown"}[ready.get(host.name)],
        }
        for host in topology.hosts(wanted.hosts)
    ]


def problems(layout: Layout, rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong, each with its cure. Empty: everything runs, and every node is Ready."""
    wanted = read_wanted(layout)
    if wanted is None:
        return ["no cluster is up; start one with `sphere up`"]
    found = [_problem(layout, row) for row in rows if row["state"] != "running"]
    try:
        ready = api.node_readiness(layout)
    except (Retryable, OSError) as err:
        return [*found, str(err)]
    late = [host.name for host in topology.hosts(wanted.hosts) if not ready.get(host.name)]
    if late:
        found.append(f"not Ready: {', '.join(late)}; `kubectl describe node {late[0]}` says why")
    return found


def _problem(layout: Layout, row: dict[str, Any]) -> str:
    machine, component = row["machine"], row["component"]
    if row["state"] == "off":
        return f"{machine} is off; `sphere host start {machine}` starts it"
    if row["state"] == "stopped":
        return f"{machine}: {component} was stopped; `sphere host start {machine} --component {component}` starts it"
    return f"{machine}: {component} does not stay up; see {layout.logs(machine) / component}.log"


def _readiness(layout: Layout) -> dict[str, bool]:
    try:
        return api.node_readiness(layout)
    except (Retryable, OSError):
        return {}

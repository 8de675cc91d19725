"""``make bench``: measure the promised figures on this machine's cluster (brought up if absent) and print ratios.

Floors are measured in the same run, so that a slower machine changes both. The cluster is left as it was found.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from sphere import machines, topology
from sphere.layout import Layout
from tests.bench import endpoint_change, idle, pod_start, requests
from tests.bench.cluster import ROOT, Api
from tests.bench.figures import Figure
from tests.bench.surroundings import Surroundings

QUIET_LOAD = 0.7
"""Load average above which the figures say more about the machine than about the cluster."""

WIDTH = 120
"""Of the table when it goes to a file."""


def figures(api: Api, rounds: int) -> Iterator[Figure]:
    """All figures, the quiet ones first: they want a cluster that does nothing else."""
    hosts = sorted(n["metadata"]["name"] for n in api.call("GET", "/api/v1/nodes")["items"])
    yield from idle.measure()
    yield from pod_start.measure(api, rounds)
    yield from endpoint_change.measure(api, hosts, rounds * 5)
    yield from requests.measure(api, rounds * 5)


def _notes(around: Surroundings, pods: int) -> list[str]:
    load, steal = around.load, around.steal_percent()
    after = os.getloadavg()[0]
    notes = [f"load average {load:.2f} before and {after:.2f} after, steal {steal:.1f}%, {pods} other pods"]
    if load > QUIET_LOAD:
        notes.append("the machine was busy before the run: only ratios mean something")
    if pods:
        notes.append(f"the cluster was not empty: idle CPU includes {pods} pods, their probes and their traffic")
    return notes


def _show(found: list[Figure], notes: list[str], form: str) -> None:
    if form == "json":
        print(json.dumps({"figures": [one.as_dict() for one in found], "notes": notes}, indent=2))
        return
    table = Table("figure", "ours", "floor", "compared", "promise", "")
    for figure in found:
        table.add_row(*figure.row())
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table)
    for note in notes:
        console.print(note)


def main() -> int:
    """Exit status 0 when every promise was kept, 1 when one was missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="pods started one at a time; the rest scales with it")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    around = Surroundings.now()
    if machines.pid_of(Layout.default(), topology.control().name) is None:
        subprocess.run([sys.executable, "-m", "sphere", "up"], check=True, timeout=300, cwd=ROOT, stdout=sys.stderr)
    api = Api(Layout.default().kubeconfig)
    pods = len(api.call("GET", "/api/v1/pods")["items"])
    found: list[Figure] = []
    for figure in figures(api, arguments.rounds):
        found.append(figure)
        print(f"{figure.name}: {figure.ours:.1f} {figure.unit}", file=sys.stderr)
    _show(found, _notes(around, pods), arguments.output)
    return 0 if all(figure.kept for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())

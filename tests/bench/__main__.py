"""``make bench``: measure the promised figures on this machine's cluster (brought up if absent) and print ratios."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sphere.layout import Layout
from tests.bench import endpoint_change, idle, pod_start
from tests.bench.cluster import Api, output, sphere
from tests.bench.figures import Figure


def figures(kubeconfig: Path, rounds: int) -> Iterator[Figure]:
    """All figures, the quiet ones first: they want a cluster that does nothing else."""
    yield from idle.measure()
    api = Api(kubeconfig)
    hosts = sorted(n["metadata"]["name"] for n in api.call("GET", "/api/v1/nodes")["items"])
    yield from pod_start.measure(api, rounds)
    yield from endpoint_change.measure(api, hosts, rounds * 4)


def main() -> int:
    """Exit status 0 when every promise was kept, 1 when one was missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    arguments = parser.parse_args()
    output(sphere("up"), timeout_s=300)
    found = list(figures(Layout.default().kubeconfig, arguments.rounds))
    if arguments.output == "json":
        print(json.dumps([{"name": f.name, "ours": f.ours, "floor": f.floor, "measured": f.measured} for f in found]))
    else:
        table = Table("figure", "ours", "floor", "compared", "promise", "")
        for figure in found:
            table.add_row(*figure.row())
        Console().print(table)
    return 0 if all(f.kept for f in found) else 1


if __name__ == "__main__":
    sys.exit(main())

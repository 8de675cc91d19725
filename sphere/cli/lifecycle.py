"""`sphere up` and `sphere down`."""

import time

import click

from sphere.cli.progress import progress
from sphere.layout import Layout


@click.command()
@click.option("--hosts", type=int, default=3, show_default=True, help="Number of hosts.")
@click.option(
    "--monitoring/--no-monitoring",
    default=None,
    help="Run a Prometheus that scrapes the cluster, or none. Not given: as it was; none in a new cluster.",
)
def up(hosts: int, monitoring: bool | None) -> None:
    """Bring a cluster up on this machine, or complete it.

    Run again, it converges: what is missing is started, what runs is left alone.

    \b
    Examples:
      sphere up
      sphere up --hosts 5 --monitoring
    """
    from sphere import cluster
    from sphere.kubectl import shell_lines
    from sphere.wanted import Wanted, read_wanted

    layout = Layout.default()
    started = time.monotonic()
    with progress(f"Bringing up {hosts} hosts") as report:
        if monitoring is None:
            monitoring = (read_wanted(layout) or Wanted()).monitoring
        cluster.up(layout, Wanted(hosts, monitoring), report)
    click.echo(f"{hosts} hosts are Ready ({time.monotonic() - started:.1f} s). To use the cluster:")
    for line in shell_lines(layout):
        click.echo(f"  {line}")
    if monitoring:
        click.echo("Prometheus: run `sphere host forward control 9090` and open http://127.0.0.1:9090")


@click.command()
@click.option("--keep-state", is_flag=True, help="Keep the state of etcd and of the hosts for the next up.")
def down(keep_state: bool) -> None:
    """Take the cluster down: processes, namespaces, mounts, links, rules and cgroups.

    The certificates stay in the run directory, so that a copied kubeconfig fits the next cluster, and so do the logs.

    \b
    Examples:
      sphere down
      sphere down --keep-state
    """
    from sphere import cluster

    with progress("Taking the cluster down") as report:
        cluster.down(Layout.default(), report, keep_state=keep_state)

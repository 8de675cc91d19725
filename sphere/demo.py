"""`make demo`: a cluster, examples/shop on it, and proof that it works. Each thing that is shown was checked.

Run again, it converges: it repairs and completes what is there.
"""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

import click

from common.errors import SphereError, Terminal
from sphere import cluster, machines, topology
from sphere.cli.progress import progress
from sphere.commands import run
from sphere.images import build, load, recipes
from sphere.kubectl import Kubectl, shell_lines
from sphere.layout import PROJECT, Layout
from sphere.wanted import Wanted, present_hosts, read_wanted

SHOP = PROJECT / "examples" / "shop"
FRONT, BACK = "shop-front", "shop-back"
HOSTS = 3
REQUESTS = 40
NODE_PORT = 30080
ROLLOUT_S = 120
DEADLINE_S = 20.0
FORBIDDEN_WAIT_S = 3
WGET = "timeout 10 wget -q -O -"
"""Not `wget -T`: that option crashes the wget of Debian 12's busybox."""

Report = Callable[[str], None]


def deploy(layout: Layout, kubectl: Kubectl, report: Report) -> None:
    """Cluster, images and the shop; returns when every pod of it is ready."""
    wanted = read_wanted(layout) or Wanted(HOSTS)
    cluster.up(layout, Wanted(max(wanted.hosts, 2), wanted.monitoring), report)
    for recipe in recipes.DEMO:
        path = build.ensure(recipe)
        report(f"image {recipe.name}: built")
        # Loaded again each time: an image that changed keeps its name.
        load.load(layout, path, present_hosts(layout))
        report(f"image {recipe.name}: on every host")
    kubectl.run("apply", "-f", str(SHOP))
    report("examples/shop: applied")
    for namespace, deployment in ((BACK, "db"), (BACK, "api"), (FRONT, "web")):
        options = (f"deployment/{deployment}", f"--timeout={ROLLOUT_S}s")
        kubectl.run("-n", namespace, "rollout", "status", *options, timeout_s=ROLLOUT_S + 10)
        report(f"{namespace}/{deployment}: rolled out")
    kubectl.run("-n", FRONT, "wait", "--for=condition=Ready", "pod/visitor", f"--timeout={ROLLOUT_S}s")


def show_placement(kubectl: Kubectl) -> list[str]:
    """Who runs where; web must be on more than one host."""
    lines, hosts = [], set()
    for namespace in (FRONT, BACK):
        for pod in kubectl.items("pods", namespace):
            name, status = pod["metadata"]["name"], pod["status"]
            host = pod["spec"].get("nodeName", "-")
            lines.append(f"{namespace:<11} {name:<24} {host:<8} {status.get('podIP', '-'):<15} {status['phase']}")
            if pod["metadata"]["labels"].get("app") == "web":
                hosts.add(host)
    if len(hosts) < 2:
        raise Terminal(f"all web pods are on {', '.join(hosts)}; they should be spread")
    return lines


def show_balancing(kubectl: Kubectl) -> list[str]:
    """Requests to the Service must reach pods on different hosts, and go through all three tiers."""
    one = f"{WGET} http://web/whoami; echo"
    script = f"i=0; while [ $i -lt {REQUESTS} ]; do {one}; i=$((i+1)); done"
    answers = _visit(kubectl, script).split("\n")
    seen = [json.loads(line)["answered_by"][0] for line in answers if line.strip()]
    if len(seen) != REQUESTS:
        raise Terminal(f"{REQUESTS - len(seen)} of {REQUESTS} requests to Service web were not answered")
    counts = Counter((one["host"], one["pod"]) for one in seen)
    if len({host for host, _ in counts}) < 2:
        raise Terminal(f"Service web reached pods on one host only: {sorted(counts)}")
    trail = json.loads(_visit(kubectl, f"{WGET} http://web/trail"))
    lines = [f"{count:>3} of {REQUESTS} requests: {pod} on {host}" for (host, pod), count in sorted(counts.items())]
    return [*lines, "through the tiers: " + " -> ".join(trail["answered_by"]) + f" (view {trail['views']})"]


def show_realized(kubectl: Kubectl) -> list[str]:
    """Each policy must be in force on every host that it concerns."""
    command = (
        "-n",
        BACK,
        "wait",
        "--for=condition=Realized",
        "networkpolicy",
        "--all",
        f"--timeout={int(DEADLINE_S)}s",
    )
    kubectl.run(*command)
    lines = [f"$ kubectl {' '.join(command)}"]
    for policy in kubectl.items("networkpolicies", BACK):
        conditions = {one["type"]: one for one in policy.get("status", {}).get("conditions", [])}
        found = conditions["Realized"]
        lines.append(
            f"{policy['metadata']['name']:<14} Realized={found['status']} ({found.get('message') or found['reason']})"
        )
    return lines


def show_forbidden(kubectl: Kubectl) -> list[str]:
    """What a policy forbids must be dropped, and only that: the same connection works for who is allowed."""
    db = kubectl.items("pods", BACK, "app=db")[0]["status"]["podIP"]
    api = kubectl.items("pods", BACK, "app=api")[0]["metadata"]["name"]
    connect = f"import socket; socket.create_connection(('{db}', 6379), {FORBIDDEN_WAIT_S})"
    allowed = kubectl.try_run("-n", BACK, "exec", api, "--", "python3.11", "-c", connect)
    if allowed.returncode != 0:
        raise Terminal(f"the api's own pod cannot reach the database at {db}: {allowed.stderr.strip()}")
    started = time.monotonic()
    probe = f"echo PING | nc -w {FORBIDDEN_WAIT_S} {db} 6379"
    outcome = _visit(kubectl, f"{probe} && echo reached || echo dropped").strip()
    took = time.monotonic() - started
    if not outcome.endswith("dropped"):
        raise Terminal(f"the visitor reached the database at {db}, which the policies of {BACK} forbid")
    return [
        f"{api} -> {db}:6379: connected (policy db-from-api allows it)",
        f"visitor -> {db}:6379: dropped, no answer in {took:.1f} s (no policy allows it)",
    ]


def show_urls(layout: Layout, kubectl: Kubectl) -> list[str]:
    """Ways in from outside: the node port, from the physical network, and a port-forward, from this machine."""
    address = topology.host(1).address
    url = f"http://{address}:{NODE_PORT}"
    run(
        machines.enter_argv(
            layout, topology.OUTSIDE, ["timeout", "5", "busybox", "wget", "-q", "-O", "-", f"{url}/whoami"]
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["kubectl", "-n", FRONT, "port-forward", "service/web", f"{port}:80"]
    process = subprocess.Popen(
        command, env=kubectl.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _fetch(f"http://127.0.0.1:{port}/", process)
    finally:
        process.terminate()
        process.wait()
    return [
        f"{url}  on the cluster's physical network: sphere host exec outside -- busybox wget -O - {url}",
        f"http://127.0.0.1:8080  after: kubectl -n {FRONT} port-forward service/web 8080:80",
    ]


def _fetch(url: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                response.read()
                return
        except OSError as err:
            if process.poll() is not None or time.monotonic() > deadline:
                words = process.stderr.read() if process.stderr and process.poll() is not None else ""
                raise Terminal(f"the port-forward to Service web does not answer: {err} {words.strip()}") from err
            time.sleep(0.1)


def _visit(kubectl: Kubectl, script: str) -> str:
    return kubectl.run("-n", FRONT, "exec", "visitor", "--", "sh", "-c", script)


def main() -> None:
    """Entry point."""
    layout = Layout.default()
    kubectl = Kubectl(layout)
    started = time.monotonic()
    try:
        with progress("Demonstration") as report:
            deploy(layout, kubectl, report)
            sections = {
                "Who runs where": show_placement(kubectl),
                "One Service, pods on different hosts": show_balancing(kubectl),
                "Policies that are in force": show_realized(kubectl),
                "A forbidden connection": show_forbidden(kubectl),
                "Ways in": show_urls(layout, kubectl),
            }
    except SphereError as err:
        click.echo(f"demo: {err}", err=True)
        sys.exit(1)
    for title, lines in sections.items():
        click.echo("\n" + click.style(title, bold=True))
        for line in lines:
            click.echo(f"  {line}")
    click.echo(f"\nAll of it was checked, in {time.monotonic() - started:.0f} s. To go on:")
    for line in shell_lines(layout):
        click.echo(f"  {line}")


if __name__ == "__main__":
    main()

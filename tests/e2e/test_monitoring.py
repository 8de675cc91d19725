"""Prometheus beside a cluster: it reaches every process, and every query of the dashboard finds data in it."""

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sphere.layout import PROJECT
from sphere.wanted import read_wanted
from tests.support.cluster import HOSTS, sphere

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

FILES = PROJECT / "ansible" / "roles" / "monitoring" / "files"
DASHBOARD = json.loads((FILES / "sphere.dashboard.json").read_text())
VARIABLES = {"$__rate_interval": "1m", "$host": ".*"}
"""What Grafana would fill in."""
METRIC = re.compile(r"\b(up|(?:sphere|spherelet|nsx_agent|apiserver|etcd|process)_[a-z0-9_]+)\b")
IMAGE = "docker.io/library/busybox:latest"


class Prometheus:
    """The cluster's Prometheus over a forwarded port."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}/api/v1"
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str, **parameters: str) -> Any:
        """The answer's data. A connection that is not made yet is a failed assertion, for ``eventually``."""
        try:
            with self.opener.open(f"{self.base}/{path}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as err:
            raise ValueError(f"{parameters}: {err.read().decode()}") from err
        except OSError as err:
            raise AssertionError(f"Prometheus does not answer: {err}") from err

    def values(self, expr: str) -> dict[tuple[tuple[str, str], ...], float]:
        """Labels -> value; NaN (nothing happened in the time of a quantile) is no value."""
        rows = self.get("query", query=expr)["result"]
        found = {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in rows}
        return {labels: value for labels, value in found.items() if value == value}


@pytest.fixture(scope="module")
def prometheus(cluster: Any) -> Iterator[Prometheus]:
    """Monitoring is switched on for this file, unless it was on before."""
    before = read_wanted(cluster.layout)
    was_on = before is not None and before.monitoring
    controller = _pid(cluster, "sphere-controller")
    sphere("up", "--hosts", str(HOSTS), "--monitoring")
    assert _pid(cluster, "sphere-controller") == controller, "monitoring comes without touching the control plane"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sphere", "host", "forward", "control", "9090", "--local", str(port)]
    forward = subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL)
    try:
        yield Prometheus(port)
    finally:
        forward.send_signal(signal.SIGINT)
        forward.wait(timeout=10)
        if not was_on:
            sphere("up", "--hosts", str(HOSTS), "--no-monitoring")
            assert "prometheus" not in {row["component"] for row in cluster.components()}


def _pid(cluster: Any, component: str) -> int:
    pid: int = next(row["pid"] for row in cluster.components() if row["component"] == component)
    return pid


def test_every_process_is_scraped(prometheus: Prometheus, cluster: Any, eventually: Callable[..., Any]) -> None:
    wanted = {(job, host) for job in ("spherelet", "nsx-agent") for host in cluster.hosts}
    wanted |= {("sphere-controller", "control"), ("etcd", "control")}

    def scraped(expr: str) -> set[tuple[str, str]]:
        return {(dict(labels)["job"], dict(labels)["host"]) for labels in prometheus.values(expr)}

    eventually(lambda: scraped("up == 1") == wanted)
    for metric in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert scraped(f"{metric} > 0") == wanted


def _queries() -> list[tuple[str, str]]:
    return [
        (f"{panel['title']}: {target['legendFormat']}", target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
    ]


def _filled_in(expr: str) -> str:
    for name, value in VARIABLES.items():
        expr = expr.replace(name, value)
    assert "$" not in expr, f"unknown variable in {expr}"
    return expr


def _objects() -> list[dict[str, Any]]:
    labels = {"app": "busy"}
    container = {"name": "main", "image": IMAGE, "command": ["sleep", "1d"]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "busy"},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
                },
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "busy"},
            "spec": {"selector": labels, "ports": [{"port": 80}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "busy"},
            "spec": {"podSelector": {"matchLabels": labels}, "ingress": [{"from": [{"podSelector": {}}]}]},
        },
    ]


def test_every_query_of_the_dashboard_finds_data(
    prometheus: Prometheus, kubectl: Any, eventually: Callable[..., Any]
) -> None:
    kubectl.apply(*_objects())
    kubectl("wait", "--for=condition=Available", "deployment/busy", "--timeout=60s")
    replicas = itertools.cycle(["6", "2"])
    missing = dict(_queries())
    assert len(missing) > 50

    def all_found() -> bool:
        # Something has to happen between two scrapes for a rate or a latency to be there.
        kubectl("scale", "deployment/busy", f"--replicas={next(replicas)}")
        for title, expr in list(missing.items()):
            if prometheus.values(_filled_in(expr)):
                del missing[title]
        assert not missing, f"no data for {missing}"
        return True

    eventually(all_found, timeout_s=120, period_s=3.0)


def test_alerts_are_loaded_and_name_metrics_that_exist(prometheus: Prometheus, eventually: Callable[..., Any]) -> None:
    def healthy() -> list[dict[str, Any]]:
        (group,) = prometheus.get("rules")["groups"]
        assert {rule["health"] for rule in group["rules"]} == {"ok"}
        rules: list[dict[str, Any]] = group["rules"]
        return rules

    rules = eventually(healthy)
    assert len(rules) > 10
    known = {"up", *prometheus.get("metadata")}
    for rule in rules:
        used = {re.sub(r"_bucket$", "", name) for name in METRIC.findall(re.sub(r'"[^"]*"', "", rule["query"]))}
        assert used, rule["name"]
        assert used <= known, f"{rule['name']} asks for {used - known}"
        assert {"summary", "action"} <= rule["annotations"].keys()


def test_metrics_are_for_those_who_may(cluster: Any) -> None:
    pki = cluster.layout.pki
    for url in ("https://172.30.0.2:6443", "https://172.30.0.11:10250", "https://172.30.0.11:10251"):
        for identity, status in (("prometheus", "200"), ("host-2-spherelet", "403"), ("", "401")):
            certificate = ["--cert", f"{pki}/{identity}.crt", "--key", f"{pki}/{identity}.key"] if identity else []
            curl = ["curl", "--silent", "--noproxy", "*", "--cacert", f"{pki}/ca.crt", *certificate]
            said = cluster.exec(
                "control", *curl, "--output", "/dev/null", "--write-out", "%{http_code}", f"{url}/metrics"
            )
            assert said in ((status, "403") if identity == "" else (status,)), f"{url} as {identity or 'nobody'}"

"""Grafana's dashboard as code. Run it to write ``files/sphere.dashboard.json``; a test compares the two.

Queries that count what should not happen end in ``or vector(0)``: a quiet cluster shows 0, not "no data".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("files") / "sphere.dashboard.json"
WIDTH = 24
HEIGHT = 7
HOST = 'host=~"$host"'


@dataclass(frozen=True)
class Query:
    """One PromQL expression; ``legend`` may name labels as ``{{label}}``."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """``unit`` is Grafana's; ``stat`` shows the last value large, red from ``red_from`` on."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    help: str = ""
    width: int = 8
    stat: bool = False
    red_from: float | None = None


@dataclass(frozen=True)
class Row:
    """A heading and its panels, filled from the left."""

    title: str
    panels: tuple[Panel, ...]


def rate(metric: str, selector: str = "", by: str = "") -> str:
    """Increase a second, added up over all but ``by``."""
    inner = f"rate({metric}{{{selector}}}[$__rate_interval])"
    return f"sum by ({by}) ({inner})" if by else f"sum({inner})"


def quantile(q: float, metric: str, selector: str = "", by: str = "") -> str:
    """Quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{metric}_bucket', selector, labels)})"


def quantiles(metric: str, selector: str = "", by: str = "") -> tuple[Query, ...]:
    """p50 and p99."""
    suffix = "".join(f" {{{{{label.strip()}}}}}" for label in by.split(",") if label.strip())
    return tuple(Query(quantile(q, metric, selector, by), f"p{round(q * 100)}{suffix}") for q in (0.5, 0.99))


def or_zero(expr: str) -> str:
    """0 instead of nothing."""
    return f"{expr} or vector(0)"


def stat(title: str, expr: str, *, red_from: float | None = None, unit: str = "short", help: str = "") -> Panel:
    """One large number."""
    return Panel(title, (Query(expr, title),), unit=unit, help=help, width=4, stat=True, red_from=red_from)


JOBS = 'job=~"sphere-controller|spherelet|nsx-agent|etcd"'
SERVER_ERRORS = 'code=~"5.."'
CLIENT_ERRORS = 'code=~"4.."'
NOT_STREAMS = 'verb!~"WATCH|CONNECT"'

ROWS = (
    Row(
        "Cluster",
        (
            stat("Nodes ready", 'sphere_controller_nodes{ready="true"}'),
            stat("Nodes not ready", 'sum(sphere_controller_nodes{ready!="true"})', red_from=1),
            stat("Processes down", f"sum(1 - up{{{JOBS}}})", red_from=1, help="Of those that Prometheus scrapes."),
            stat("Hosts behind", "sphere_controller_network_hosts_behind", red_from=1, help="Live, but not realized."),
            stat("Pods pending", 'sphere_controller_pods{phase="Pending"}'),
            stat("Alerts", 'sum(ALERTS{alertstate="firing"}) or vector(0)', red_from=1),
            Panel("Pods by phase", (Query("sphere_controller_pods", "{{phase}}"),)),
            Panel("Processes up", (Query(f"sum by (job) (up{{{JOBS}}})", "{{job}}"),)),
            Panel(
                "Restarts of processes in an hour",
                (Query(f"sum by (job) (changes(process_start_time_seconds{{{JOBS}}}[1h]))", "{{job}}"),),
            ),
        ),
    ),
    Row(
        "API",
        (
            Panel("Requests", (Query(rate("apiserver_request_total", by="verb"), "{{verb}}"),), "reqps"),
            Panel("Latency", quantiles("apiserver_request_duration_seconds", NOT_STREAMS), "s", "Without watches."),
            Panel(
                "Latency p99 by verb",
                (Query(quantile(0.99, "apiserver_request_duration_seconds", NOT_STREAMS, "verb"), "{{verb}}"),),
                "s",
            ),
            Panel(
                "Answers that are errors",
                (
                    Query(or_zero(rate("apiserver_request_total", SERVER_ERRORS)), "server's fault (5xx)"),
                    Query(or_zero(rate("apiserver_request_total", CLIENT_ERRORS)), "client's fault (4xx)"),
                ),
                "reqps",
                "409 is the normal end of a race for an object.",
            ),
            Panel(
                "Watches", (Query('sum(apiserver_longrunning_requests{verb="WATCH"})', "all"),), help="Open watches."
            ),
            Panel("Objects stored", (Query("topk(10, apiserver_storage_objects)", "{{resource}}"),)),
        ),
    ),
    Row(
        "etcd",
        (
            Panel("Transactions, as the API sees them", quantiles("etcd_request_duration_seconds"), "s"),
            Panel("Sync to disk", quantiles("etcd_disk_wal_fsync_duration_seconds", by="host"), "s"),
            Panel(
                "Database",
                (
                    Query("etcd_mvcc_db_total_size_in_bytes", "{{host}} file"),
                    Query("etcd_mvcc_db_total_size_in_use_in_bytes", "{{host}} in use"),
                ),
                "bytes",
            ),
            Panel("Writes", (Query(rate("etcd_server_proposals_committed_total", by="host"), "{{host}}"),), "ops"),
            Panel("Has a leader", (Query("etcd_server_has_leader", "{{host}}"),)),
            Panel("Failed writes", (Query(rate("etcd_server_proposals_failed_total", by="host"), "{{host}}"),), "ops"),
        ),
    ),
    Row(
        "Controllers and scheduler",
        (
            Panel("Queue depth", (Query("sphere_controller_workqueue_depth", "{{controller}}"),)),
            Panel(
                "Passes",
                (Query(rate("sphere_controller_reconcile_seconds_count", by="controller"), "{{controller}}"),),
                "ops",
            ),
            Panel(
                "Duration of a pass, p99",
                (Query(quantile(0.99, "sphere_controller_reconcile_seconds", by="controller"), "{{controller}}"),),
                "s",
            ),
            Panel(
                "Errors",
                (Query(or_zero(rate("sphere_controller_reconcile_errors_total")), "errors"),),
                "ops",
                "A conflict is one too; the pass is done again.",
            ),
            Panel(
                "Scheduling attempts",
                (Query(rate("sphere_controller_scheduling_attempts_total", by="result"), "{{result}}"),),
                "ops",
            ),
            Panel("Scheduling decision", quantiles("sphere_controller_scheduling_decision_seconds"), "s"),
            Panel("Pods that fit on no host", (Query("sphere_controller_pending_pods", "waiting"),)),
            Panel(
                "Writes of controllers",
                (Query(rate("sphere_controller_writes_total", by="controller"), "{{controller}}"),),
                "ops",
            ),
            Panel("Events given up", (Query(rate("sphere_controller_events_dropped_total"), "events"),), "ops"),
        ),
    ),
    Row(
        "Pods",
        (
            Panel(
                "Start",
                quantiles("spherelet_pod_start_duration_seconds", HOST),
                "s",
                "Arrival on the host to Ready in the API, pulls included.",
            ),
            Panel("Running pods", (Query(f"spherelet_running_pods{{{HOST}}}", "{{host}}"),)),
            Panel("Running containers", (Query(f"spherelet_running_containers{{{HOST}}}", "{{host}}"),)),
            Panel(
                "Container restarts",
                (Query(rate("spherelet_container_restarts_total", HOST, "host"), "{{host}}"),),
                "ops",
            ),
            Panel(
                "What is done for pods, p99",
                (
                    Query(
                        quantile(0.99, "spherelet_runtime_operations_duration_seconds", HOST, "operation"),
                        "{{operation}}",
                    ),
                ),
                "s",
            ),
            Panel(
                "Failures",
                (Query(or_zero(rate("spherelet_runtime_operations_errors_total", HOST)), "failures"),),
                "ops",
            ),
            Panel("Status writes", (Query(rate("spherelet_status_writes_total", HOST, "host"), "{{host}}"),), "ops"),
        ),
    ),
    Row(
        "Network",
        (
            Panel(
                "Realization: API to kernel",
                quantiles("sphere_controller_network_realization_seconds", HOST, "host"),
                "s",
                "From the API's change until the host has confirmed that its kernel enforces it.",
                12,
            ),
            Panel(
                "Realization by scope, p99",
                (
                    Query(
                        quantile(0.99, "sphere_controller_network_realization_seconds", HOST, "scope_kind"),
                        "{{scope_kind}}",
                    ),
                ),
                "s",
                width=12,
            ),
            Panel("Hosts behind", (Query("sphere_controller_network_hosts_behind", "hosts"),)),
            Panel(
                "Kernel transaction", quantiles("nsx_agent_transaction_seconds", HOST), "s", "One apply of an agent."
            ),
            Panel(
                "CNI requests, p99",
                (Query(quantile(0.99, "nsx_agent_cni_seconds", HOST, "op"), "{{op}}"),),
                "s",
                "add waits until the pod's policy is in force on every host concerned.",
            ),
            Panel("Desired items", (Query("sphere_controller_network_desired_items", "{{scope_kind}}"),)),
            Panel("Items held", (Query(f"sum by (host) (nsx_agent_items{{{HOST}}})", "{{host}}"),)),
            Panel("Items not in force", (Query(f"nsx_agent_failed_items{{{HOST}}}", "{{host}}"),)),
            Panel("Entries changed", (Query(rate("nsx_agent_changes_total", HOST, "host"), "{{host}}"),), "ops"),
            Panel(
                "Packets dropped",
                (Query(rate("nsx_agent_dropped_packets_total", HOST, "reason"), "{{reason}}"),),
                "pps",
            ),
            Panel("Foreign changes undone", (Query(rate("nsx_agent_heals_total", HOST, "host"), "{{host}}"),), "ops"),
            Panel(
                "Pods waiting for the network",
                (
                    Query("sphere_controller_network_pods_waiting_to_start", "to start"),
                    Query("sphere_controller_network_pods_draining", "to stop"),
                ),
            ),
            Panel("Planning", quantiles("sphere_controller_network_planner_pass_seconds"), "s"),
            Panel(
                "Messages published",
                (Query(rate("sphere_controller_network_published_messages_total"), "messages"),),
                "ops",
            ),
        ),
    ),
    Row(
        "Broker",
        (
            Panel("Hosts connected", (Query(f"nsx_agent_broker_connected{{{HOST}}}", "{{host}}"),)),
            Panel("Controller connected", (Query("sphere_controller_network_broker_connected", "connected"),)),
            Panel(
                "Comparisons with the broker in an hour",
                (Query("increase(sphere_controller_network_resyncs_total[1h])", "resyncs"),),
            ),
        ),
    ),
    Row(
        "Processes",
        (
            Panel(
                "CPU",
                (Query(f"rate(process_cpu_seconds_total{{{JOBS}}}[$__rate_interval])", "{{job}} {{host}}"),),
                "percentunit",
                width=12,
            ),
            Panel(
                "Memory",
                (Query(f"process_resident_memory_bytes{{{JOBS}}}", "{{job}} {{host}}"),),
                "bytes",
                width=12,
            ),
            Panel("Open files", (Query(f"process_open_fds{{{JOBS}}}", "{{job}} {{host}}"),), width=12),
            Panel(
                "Uptime", (Query(f"time() - process_start_time_seconds{{{JOBS}}}", "{{job}} {{host}}"),), "s", width=12
            ),
            Panel(
                "Certificates end in",
                (
                    Query(
                        "bottomk(10, sphere_certificate_expiry_timestamp_seconds - time())", "{{certificate}} {{host}}"
                    ),
                ),
                "s",
                "Those that end first, of those that are in use.",
                width=24,
            ),
        ),
    ),
)

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel(number: int, one: Panel, x: int, y: int) -> dict[str, Any]:
    """Grafana's JSON of a panel."""
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if one.red_from is not None:
        steps.append({"color": "red", "value": one.red_from})
    return {
        "id": number,
        "type": "stat" if one.stat else "timeseries",
        "title": one.title,
        "description": one.help,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": one.width, "h": 4 if one.stat else HEIGHT},
        "fieldConfig": {"defaults": {"unit": one.unit, "thresholds": {"mode": "absolute", "steps": steps}}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": each.expr, "legendFormat": each.legend}
            for index, each in enumerate(one.queries)
        ],
    }


def panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows one below the other."""
    found: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row.title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
            }
        )
        x, y, tallest = 0, y + 1, 0
        for one in row.panels:
            if x + one.width > WIDTH:
                x, y, tallest = 0, y + tallest, 0
            found.append(panel(len(found) + 1, one, x, y))
            x, tallest = x + one.width, max(tallest, found[-1]["gridPos"]["h"])
        y += tallest
    return found


def dashboard() -> dict[str, Any]:
    """The whole dashboard."""
    host = {
        "name": "host",
        "type": "query",
        "label": "Host",
        "datasource": DATASOURCE,
        "query": {"query": "label_values(spherelet_running_pods, host)", "refId": "hosts"},
        "definition": "label_values(spherelet_running_pods, host)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
        "sort": 3,
    }
    return {
        "uid": "sphere",
        "title": "Sphere",
        "description": "A Sphere cluster: health, API, controllers, pods, network realization.",
        "tags": ["sphere", "kubernetes"],
        "schemaVersion": 38,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "label": "Prometheus", "query": "prometheus"}, host]
        },
        "panels": panels(ROWS),
    }


def text() -> str:
    """Content of the file."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(text())

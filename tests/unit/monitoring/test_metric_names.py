"""Every metric of every process follows Prometheus' conventions: names tell component and base unit, help is there."""

import re

import prometheus_client
import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric

import spherelet.metrics  # noqa: F401 - registers its metrics
from controller.api.metrics import ApiMetrics
from controller.network.metrics import NetworkMetrics
from controller.runtime.census import Census
from controller.runtime.metrics import ControllerMetrics
from nsx_agent.metrics import AgentMeter
from sphere.layout import PROJECT

PREFIXES = (
    "sphere_controller_",
    "spherelet_",
    "nsx_agent_",
    "process_",
    "python_",
    # The same in every process.
    "sphere_certificate_",
    # Names that Kubernetes dashboards look for.
    "apiserver_",
    "etcd_request_",
)
BASE_UNITS = ("seconds", "bytes", "ratio")
OTHER_UNITS = re.compile(r"_(ms|milliseconds|microseconds|nanoseconds|minutes|hours|kb|mb|kib|mib|percent)(_|$)")


class _Nothing:
    def objects(self, resource: object) -> list[object]:
        return []

    entries = objects


def _registries() -> dict[str, CollectorRegistry]:
    api = ApiMetrics()
    NetworkMetrics(api.registry)
    ControllerMetrics(api.registry)
    api.registry.register(Census(_Nothing()))  # type: ignore[arg-type]
    return {"controller": api.registry, "spherelet": prometheus_client.REGISTRY, "nsx-agent": AgentMeter()._registry}


def _families() -> list[tuple[str, Metric]]:
    return [(process, family) for process, registry in _registries().items() for family in registry.collect()]


def test_every_process_has_some() -> None:
    assert {process for process, _ in _families()} == {"controller", "spherelet", "nsx-agent"}
    assert {family.name for process, family in _families() if process == "nsx-agent"} >= {"process_cpu_seconds"}


@pytest.mark.parametrize(("process", "family"), _families(), ids=lambda one: getattr(one, "name", one))
def test_name_and_help(process: str, family: Metric) -> None:
    assert family.name.startswith(PREFIXES), "the component comes first"
    assert re.fullmatch(r"[a-z][a-z0-9_]*", family.name)
    assert not OTHER_UNITS.search(family.name), "seconds, bytes and ratios only"
    assert family.documentation.strip(), "help says what is measured"
    assert family.type in ("counter", "gauge", "histogram"), "summaries cannot be added up over hosts"
    # The client library adds _total to counters, and would hide it if it were missing.
    assert not family.name.endswith("_total")
    if family.type == "histogram":
        assert family.name.endswith(BASE_UNITS), "a histogram measures something with a unit"
    if family.type == "gauge":
        assert not family.name.endswith("_count"), "_count belongs to histograms"


@pytest.mark.parametrize(("process", "family"), _families(), ids=lambda one: getattr(one, "name", one))
def test_labels_are_few(process: str, family: Metric) -> None:
    labels = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert not labels & {"pod", "pod_uid", "uid", "container_id", "name", "address"}, "unbounded labels fill Prometheus"
    assert len(labels) <= 7


def test_the_reference_names_every_metric() -> None:
    table = (PROJECT / "ansible" / "README.md").read_text().split("### Metrics")[1]
    documented = set(re.findall(r"`([a-z_]+)`", "".join(row for row in table.splitlines() if row.startswith("| `"))))
    registered = {
        family.name + ("_total" if family.type == "counter" else "")
        for _, family in _families()
        if not family.name.startswith(("process_", "python_"))
    }
    # The store's own are made together with the store.
    store = {"apiserver_storage_objects", "apiserver_longrunning_requests", "sphere_controller_store_revision"}
    assert documented == registered | store


FOREIGN = {
    "up",
    "process_start_time_seconds",
    "process_open_fds",
    "process_max_fds",
    "etcd_server_has_leader",
    "etcd_disk_wal_fsync_duration_seconds",
    "etcd_mvcc_db_total_size_in_bytes",
    "etcd_server_quota_backend_bytes",
}
"""Used in alerts, and not ours: of Prometheus, of its client library, of etcd 3.4."""


def _alerts() -> list[dict[str, str]]:
    rules = yaml.safe_load((PROJECT / "ansible/roles/monitoring/files/sphere.rules.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_watches_what_there_is(alert: dict[str, str]) -> None:
    # An alert on a name that nothing serves never fires, and nobody notices.
    words = set(re.findall(r"\b([a-z]+(?:_[a-z]+)+|up)\b(?=[{\[ ]|$)", alert["expr"]))
    metrics = {re.sub(r"_(bucket|count|sum)$", "", word) for word in words} - {"histogram_quantile"}
    ours = {family.name + ("_total" if family.type == "counter" else "") for _, family in _families()}
    assert metrics
    assert metrics <= ours | FOREIGN

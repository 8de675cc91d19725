"""Metrics of API and store, under the names that Kubernetes dashboards look for."""

from collections.abc import Callable, Iterable

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric

from controller.api.request import Request
from controller.kinds.kind import ResourceKey

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class ApiMetrics:
    """Owns a registry; other parts of the controller may register their own metrics in ``registry``."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._total = Counter(
            "apiserver_request_total",
            "Requests answered.",
            ("verb", "group", "version", "resource", "subresource", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "apiserver_request_duration_seconds",
            "Time to answer; of a watch, to start it.",
            ("verb", "group", "resource"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._etcd_seconds = Histogram(
            "etcd_request_duration_seconds",
            "Time of etcd transactions.",
            ("operation",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.etcd_txn_s = self._etcd_seconds.labels("txn").observe
        self._known: Callable[[ResourceKey], bool] = lambda key: False

    def watch_store(
        self,
        known: Callable[[ResourceKey], bool],
        objects: Callable[[], dict[ResourceKey, int]],
        watchers: Callable[[], dict[ResourceKey, int]],
        revision: Callable[[], int],
    ) -> None:
        """Report the store's sizes; only ``known`` resources become label values (a client invents others at will)."""
        self._known = known
        self.registry.register(_StoreCollector(objects, watchers, revision))

    def request(self, request: Request, code: int, seconds: float) -> None:
        """Count one answered request."""
        target = request.target
        known = bool(target.resource) and self._known(target.key)
        verb = request.verb.upper() if known else (request.method if request.method in _METHODS else "OTHER")
        group, version, resource = (target.group, target.version, target.resource) if known else ("", "", "")
        subresource = target.subresource if known and len(target.subresource) < 32 and code != 404 else ""
        self._total.labels(verb, group, version, resource, subresource, str(code)).inc()
        self._seconds.labels(verb, group, resource).observe(seconds)

    def render(self) -> bytes:
        """Prometheus' text format: these, and the process-wide ones (process, runtime of the controllers)."""
        return generate_latest(self.registry) + generate_latest(REGISTRY)


class _StoreCollector:
    def __init__(
        self,
        objects: Callable[[], dict[ResourceKey, int]],
        watchers: Callable[[], dict[ResourceKey, int]],
        revision: Callable[[], int],
    ) -> None:
        self._objects, self._watchers, self._revision = objects, watchers, revision

    def collect(self) -> Iterable[Metric]:
        objects = GaugeMetricFamily("apiserver_storage_objects", "Objects stored.", labels=["resource"])
        for key, count in sorted(self._objects().items()):
            objects.add_metric([str(key)], count)
        watchers = GaugeMetricFamily("apiserver_longrunning_requests", "Running watches.", labels=["resource", "verb"])
        for key, count in sorted(self._watchers().items()):
            watchers.add_metric([str(key), "WATCH"], count)
        revision = GaugeMetricFamily("sphere_controller_store_revision", "etcd revision that reads are served at.")
        revision.add_metric([], self._revision())
        return [objects, watchers, revision]

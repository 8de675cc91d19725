"""What the network planner tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_PREFIX = "sphere_controller_network_"
_LATENCY_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_PASS_S = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5)


class NetworkMetrics:
    """Registers with ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.published = Counter(
            f"{_PREFIX}published_messages_total",
            "Items, deletions and manifests.",
            registry=registry,
        )
        self.items = Gauge(f"{_PREFIX}desired_items", "Items of desired state.", ("scope_kind",), registry=registry)
        self.realization_s = Histogram(
            f"{_PREFIX}realization_seconds",
            "From the API's change to the kernel's commit on a host.",
            ("host", "scope_kind"),
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.behind = Gauge(f"{_PREFIX}hosts_behind", "Live hosts that have not confirmed all.", registry=registry)
        self.pass_s = Histogram(
            f"{_PREFIX}planner_pass_seconds",
            "Planning of one pass.",
            buckets=_PASS_S,
            registry=registry,
        )
        self.starting = Gauge(f"{_PREFIX}pods_waiting_to_start", "Pods that wait for their peers.", registry=registry)
        self.stopping = Gauge(f"{_PREFIX}pods_draining", "Pods that hosts still have as a backend.", registry=registry)
        self.connected = Gauge(f"{_PREFIX}broker_connected", "1 while connected to the broker.", registry=registry)
        self.resyncs = Counter(f"{_PREFIX}resyncs_total", "Comparisons with the broker.", registry=registry)

"""Metrics of the controllers and the scheduler, with controller-runtime's usual meanings."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class ControllerMetrics:
    """One set per process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        prefix = "sphere_controller_"
        self.queue_depth = Gauge(
            f"{prefix}workqueue_depth", "Keys waiting or being worked on.", ["controller"], registry=registry
        )
        self.reconcile_seconds = Histogram(
            f"{prefix}reconcile_seconds",
            "One pass over one key: plan and writes.",
            ["controller"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.reconcile_errors = Counter(
            f"{prefix}reconcile_errors_total",
            "Passes that ended in an error.",
            ["controller", "reason"],
            registry=registry,
        )
        self.writes = Counter(
            f"{prefix}writes_total", "Writes that were applied.", ["controller", "write"], registry=registry
        )
        self.events_dropped = Counter(
            f"{prefix}events_dropped_total", "Events given up because the queue was full.", registry=registry
        )
        self.schedule_attempts = Counter(
            f"{prefix}scheduling_attempts_total", "Attempts to place a pod, by result.", ["result"], registry=registry
        )
        self.schedule_seconds = Histogram(
            f"{prefix}scheduling_decision_seconds",
            "Filters and scores of one attempt; the binding transaction is not in it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.pending_pods = Gauge(f"{prefix}pending_pods", "Pods waiting for a host.", registry=registry)

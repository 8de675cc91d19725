"""Metrics of the controllers, with controller-runtime's usual meanings."""

from prometheus_client import Counter, Gauge, Histogram

QUEUE_DEPTH = Gauge("sphere_controller_workqueue_depth", "Keys waiting or being worked on.", ["controller"])
RECONCILE_SECONDS = Histogram(
    "sphere_controller_reconcile_seconds",
    "One pass over one key: plan and writes.",
    ["controller"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECONCILE_ERRORS = Counter(
    "sphere_controller_reconcile_errors_total", "Passes that ended in an error.", ["controller", "reason"]
)
WRITES = Counter("sphere_controller_writes_total", "Writes that were applied.", ["controller", "write"])
EVENTS_DROPPED = Counter("sphere_controller_events_dropped_total", "Events given up because the queue was full.")
SCHEDULE_ATTEMPTS = Counter(
    "sphere_controller_scheduling_attempts_total", "Attempts to place a pod, by result.", ["result"]
)
SCHEDULE_SECONDS = Histogram(
    "sphere_controller_scheduling_attempt_seconds",
    "One attempt to place a pod: filters, scores and the binding transaction.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
PENDING_PODS = Gauge("sphere_controller_pending_pods", "Pods waiting for a host.")

"""Prometheus metrics of pods and containers. The server registers its own."""

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

pod_start_seconds = Histogram(
    "spherelet_pod_start_duration_seconds",
    "From the pod's arrival on this host to Ready in the API, image pulls included.",
    buckets=_SECONDS,
)
operation_seconds = Histogram(
    "spherelet_runtime_operations_duration_seconds",
    "Duration of what was done for pods, by operation.",
    ["operation"],
    buckets=_SECONDS,
)
operation_errors = Counter(
    "spherelet_runtime_operations_errors_total", "Operations that failed and will be tried again.", ["operation"]
)
status_writes = Counter("spherelet_status_writes_total", "Pod statuses written to the API.")
container_restarts = Counter("spherelet_container_restarts_total", "Containers started again after they had ended.")
running_pods = Gauge("spherelet_running_pods", "Pods with at least one running container.")
running_containers = Gauge("spherelet_running_containers", "Running containers.")

"""What the agent measures of itself."""

from collections.abc import Iterable, Mapping

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, Metric

from common.metrics import LONG_S, SHORT_S, exposition, registry


class AgentMeter:
    """All metrics of nsx-agent; implements the small meters of loop and CNI server."""

    def __init__(self) -> None:
        self._registry = source = registry()
        prefix = "nsx_agent"
        self._latency = Histogram(
            f"{prefix}_realization_seconds", "API change to kernel commit.", ["scope"], buckets=LONG_S, registry=source
        )
        self._transaction = Histogram(
            f"{prefix}_transaction_seconds", "One apply, all its kernel transactions.", buckets=SHORT_S, registry=source
        )
        self._changes = Counter(f"{prefix}_changes_total", "Entries changed in the kernel.", registry=source)
        self._healed = Counter(f"{prefix}_heals_total", "Foreign changes undone.", registry=source)
        self._cni = Histogram(
            f"{prefix}_cni_seconds", "CNI requests.", ["op", "result"], buckets=SHORT_S, registry=source
        )
        self._connected = Gauge(f"{prefix}_broker_connected", "1 while connected to the broker.", registry=source)
        self._items = Gauge(f"{prefix}_items", "Items held, by scope kind.", ["scope"], registry=source)
        self._failures = Gauge(f"{prefix}_failed_items", "Items that are not in force.", registry=source)
        self._dropped: Mapping[str, int] = {}
        source.register(self)

    def committed(self, scope: str, latency_s: float) -> None:
        self._latency.labels(scope).observe(latency_s)

    def transaction(self, seconds: float, changes: int) -> None:
        self._transaction.observe(seconds)
        self._changes.inc(changes)

    def healed(self) -> None:
        self._healed.inc()

    def cni(self, op: str, ok: bool, seconds: float) -> None:
        self._cni.labels(op, "ok" if ok else "failed").observe(seconds)

    def page(self, *, connected: bool, items: Mapping[str, int], failed: int, dropped: Mapping[str, int]) -> bytes:
        """Text exposition with the figures that are read at scrape time."""
        self._connected.set(connected)
        self._failures.set(failed)
        for scope, count in items.items():
            self._items.labels(scope).set(count)
        self._dropped = dropped
        return exposition(self._registry)

    def collect(self) -> Iterable[Metric]:
        """The kernel's own counters; they begin anew with the table, as counters may."""
        family = CounterMetricFamily("nsx_agent_dropped_packets", "Packets dropped, by reason.", labels=["reason"])
        for reason, count in self._dropped.items():
            family.add_metric([reason], count)
        return [family]

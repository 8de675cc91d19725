"""Prometheus metrics of a process: one registry, names ``sphere_<component>_...``, base units.

Collectors of the Python runtime are left out but for the process's own (CPU, memory, descriptors).
"""

from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from common.certificates import LOADED

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SHORT_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Histogram buckets for work that should take milliseconds."""
LONG_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Histogram buckets for what crosses processes."""


def registry() -> CollectorRegistry:
    """A registry with the process's own figures in it, and the ends of its certificates."""
    found = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=found)
    found.register(LOADED)
    return found


def exposition(source: CollectorRegistry) -> bytes:
    """Text exposition of all metrics, as ``CONTENT_TYPE``."""
    return generate_latest(source)

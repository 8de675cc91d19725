"""What Prometheus scrapes in a Sphere cluster, and how. Pure.

Shared by the one-machine cluster and by the machines that Ansible sets up.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from common.settings import TlsFiles

API_PORT: Final = 6443
SPHERELET_PORT: Final = 10250
AGENT_PORT: Final = 10251
INTERVAL: Final = "5s"
"""Short: what is looked for here are latencies of seconds, and there are three processes a host."""
TIMEOUT: Final = "4s"


def render(
    *,
    controllers: Mapping[str, str],
    hosts: Mapping[str, str],
    tls: TlsFiles,
    rules: Sequence[Path],
    etcd: Mapping[str, str],
) -> str:
    """Text of ``prometheus.yml`` (JSON, which is YAML).

    ``controllers`` and ``hosts`` are name -> address, ``etcd`` is name -> address:port of a plain HTTP metrics
    listener. ``tls`` is the identity of group ``system:monitoring``. The label ``host`` names the machine in all jobs.
    """
    jobs = [
        _job("sphere-controller", _at(controllers, API_PORT), tls),
        _job("spherelet", _at(hosts, SPHERELET_PORT), tls),
        _job("nsx-agent", _at(hosts, AGENT_PORT), tls),
        _job("etcd", etcd, None),
    ]
    content = {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": TIMEOUT, "evaluation_interval": INTERVAL},
        "rule_files": [str(rule) for rule in rules],
        "scrape_configs": jobs,
    }
    return json.dumps(content, indent=2) + "\n"


def _at(machines: Mapping[str, str], port: int) -> dict[str, str]:
    return {name: f"{address}:{port}" for name, address in machines.items()}


def _job(name: str, targets: Mapping[str, str], tls: TlsFiles | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "job_name": name,
        "static_configs": [{"targets": [target], "labels": {"host": host}} for host, target in targets.items()],
    }
    if tls is not None:
        files = {"ca_file": str(tls.ca), "cert_file": str(tls.cert), "key_file": str(tls.key)}
        found |= {"scheme": "https", "tls_config": files}
    return found

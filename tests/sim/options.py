"""What a seed makes likely, and what it rules out altogether: each run has a character of its own (swarm testing)."""

import random
from dataclasses import dataclass, field

FAULTS = (
    "controller-crash",
    "etcd-outage",
    "etcd-watches-break",
    "etcd-compaction",
    "broker-restart",
    "broker-amnesia",
    "connection-cut",
    "host-partition",
    "agent-crash",
    "spherelet-crash",
    "container-crash",
    "power-cut",
)
WORKLOAD = (
    "deploy",
    "scale",
    "roll",
    "undeploy",
    "daemon",
    "stateful",
    "dismiss",
    "delete-pod",
    "policy",
    "unpolicy",
    "label",
    "service",
    "count",
)


@dataclass(frozen=True)
class Options:
    """``faults`` and ``workload`` map names to weights. Delays are upper ends in seconds, the rest probabilities."""

    hosts: int = 3
    steps: int = 60
    fault_share: float = 0.3
    faults: dict[str, int] = field(default_factory=dict)
    workload: dict[str, int] = field(default_factory=dict)
    pace_s: tuple[float, ...] = (0.0, 0.05, 0.5, 3.0)
    etcd_delay_s: float = 0.0
    watch_delay_s: float = 0.0
    lost_request: float = 0.0
    lost_answer: float = 0.0
    kube_delay_s: float = 0.0
    kernel_delay_s: float = 0.01
    kernel_refuses: float = 0.0
    runtime_delay_s: float = 0.1
    runtime_fails: float = 0.0
    stubborn: float = 0.0
    duplicates: float = 0.0
    broker_delay_s: float = 0.0


def swarm(seed: int) -> Options:
    """The options of a seed: a random part of all faults, each with a random weight, or none at all."""
    rng = random.Random(f"options {seed}")
    chosen = rng.sample(FAULTS, rng.randint(0, len(FAULTS)))
    return Options(
        hosts=rng.randint(2, 4),
        steps=rng.randint(30, 80),
        fault_share=rng.choice([0.1, 0.3, 0.5]),
        faults={name: rng.randint(1, 4) for name in chosen},
        workload={name: rng.randint(1, 5) for name in WORKLOAD},
        pace_s=rng.choice([(0.0, 0.05, 0.5), (0.0, 0.5, 3.0), (0.2, 2.0, 10.0)]),
        etcd_delay_s=rng.choice([0.0, 0.002, 0.05]),
        watch_delay_s=rng.choice([0.0, 0.005, 0.3]),
        lost_request=rng.choice([0.0, 0.0, 0.02]),
        lost_answer=rng.choice([0.0, 0.0, 0.02]),
        kube_delay_s=rng.choice([0.0, 0.01, 0.5]),
        kernel_delay_s=rng.choice([0.005, 0.05, 0.5]),
        kernel_refuses=rng.choice([0.0, 0.0, 0.05]),
        runtime_delay_s=rng.choice([0.02, 0.2, 2.0]),
        runtime_fails=rng.choice([0.0, 0.0, 0.1]),
        stubborn=rng.choice([0.0, 0.2]),
        duplicates=rng.choice([0.0, 0.05]),
        broker_delay_s=rng.choice([0.0, 0.01, 0.2]),
    )

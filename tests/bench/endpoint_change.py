"""An endpoint of a Service changes -> it is in the kernel of every host, against one bare nft element change."""

import re
import threading
import time
from collections.abc import Iterator

from tests.bench.cluster import Api, follow, in_machine, output
from tests.bench.figures import Figure, median, percentile

NAMESPACE = "bench-endpoints"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
ADDRESSES = ("10.79.255.1", "10.79.255.2")
"""At the far end of the pod range: no pod has them, so nothing is ever sent there."""
PROBE = "192.0.2.1"
CLEAR = "add table inet bench; delete table inet bench"
"""nft 1.0.6 has no ``destroy``."""
DEADLINE_S = 20.0
BARE = """
import subprocess, time
started = time.monotonic()
subprocess.run(["nft", "add element inet bench s { %s }"], check=True)
print(time.monotonic() - started)
"""


class Kernel:
    """``nft monitor`` of one host: notes when an address was last mentioned in a change."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._seen: dict[str, float] = {}
        self._wake = threading.Condition()
        self._process = follow(host, "stdbuf", "-oL", "nft", "monitor", "elements")
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("add element"):
                now = time.monotonic()
                with self._wake:
                    for address in re.findall(r"\d+\.\d+\.\d+\.\d+", line):
                        self._seen[address] = now
                    self._wake.notify_all()

    def wait_after(self, address: str, start: float, deadline_s: float = DEADLINE_S) -> float:
        """When ``address`` entered the kernel after ``start``. Raises ``TimeoutError``."""
        with self._wake:
            if not self._wake.wait_for(lambda: self._seen.get(address, 0.0) >= start, deadline_s):
                raise TimeoutError(f"{self.host}: {address} did not reach the kernel in {deadline_s:.0f} s")
            return self._seen[address]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def measure(api: Api, hosts: list[str], rounds: int) -> Iterator[Figure]:
    """p99 over ``rounds`` changes of the slowest host, against the p99 of a bare element change on one host."""
    kernels = [Kernel(host) for host in hosts]
    try:
        for host in hosts:
            _nft(host, f"{CLEAR}; add table inet bench; add set inet bench s {{ type ipv4_addr; }}")
        with api.namespace(NAMESPACE):
            _settle(api, kernels)
            ours, bare = [], []
            for number in range(rounds):
                bare.append(_bare_s(hosts[0]))
                ours.append(_change_s(api, kernels, ADDRESSES[number % 2]))
        name = f"endpoint change -> kernel of {len(hosts)} hosts"
        yield Figure(f"{name}, p99", percentile(ours, 99) * 1e3, "ms", percentile(bare, 99) * 1e3, 100, "excess")
        yield Figure(f"{name}, p50", median(ours) * 1e3, "ms", median(bare) * 1e3, None, "excess")
    finally:
        for kernel in kernels:
            kernel.close()
        for host in hosts:
            _nft(host, CLEAR)


def _settle(api: Api, kernels: list[Kernel]) -> None:
    """Monitors are known to listen, and the service's first endpoint is in, before the clock counts."""
    for kernel in kernels:
        _hear(kernel)
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}
    api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/services", service)
    body = {
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    }
    api.call("POST", SLICES, body)
    _change_s(api, kernels, ADDRESSES[1])


def _hear(kernel: Kernel) -> None:
    started = time.monotonic()
    while time.monotonic() - started < DEADLINE_S:
        _nft(kernel.host, f"add element inet bench s {{ {PROBE} }}; delete element inet bench s {{ {PROBE} }}")
        try:
            kernel.wait_after(PROBE, started, 0.2)
        except TimeoutError:
            continue
        return
    raise TimeoutError(f"{kernel.host}: `nft monitor` says nothing")


def _change_s(api: Api, kernels: list[Kernel], address: str) -> float:
    patch = {"endpoints": [{"addresses": [address], "conditions": {"ready": True}}]}
    started = time.monotonic()
    api.call("PATCH", f"{SLICES}/s-1", patch, "application/merge-patch+json")
    return max(kernel.wait_after(address, started) for kernel in kernels) - started


def _bare_s(host: str) -> float:
    seconds = float(output(in_machine(host, "python3", "-S", "-c", BARE % PROBE)))
    _nft(host, f"delete element inet bench s {{ {PROBE} }}")
    return seconds


def _nft(host: str, script: str) -> None:
    output(in_machine(host, "nft", script))

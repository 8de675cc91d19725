"""An endpoint of a Service changes -> it is in the kernel of every host, against one bare nft element change."""

import re
import subprocess
import threading
import time
from collections.abc import Iterator

from tests.bench.cluster import ROOT, Api, in_host, output
from tests.bench.figures import Figure, percentile

NAMESPACE = "bench-endpoints"
SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
ADDRESSES = ("10.79.255.1", "10.79.255.2")
"""At the far end of the pod range: no pod has them, so nothing is ever sent there."""
DEADLINE_S = 20.0


class Kernel:
    """``nft monitor`` of one host: notes when an address was last mentioned in a change."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.seen: dict[str, float] = {}
        self._wake = threading.Condition()
        argv = in_host(host, "stdbuf", "-oL", "nft", "monitor", "elements")
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("add element"):
                now = time.monotonic()
                with self._wake:
                    for address in re.findall(r"\d+\.\d+\.\d+\.\d+", line):
                        self.seen[address] = now
                    self._wake.notify_all()

    def wait_after(self, address: str, start: float) -> float:
        """When ``address`` entered the kernel after ``start``. Raises ``TimeoutError``."""
        with self._wake:
            if not self._wake.wait_for(lambda: self.seen.get(address, 0.0) >= start, DEADLINE_S):
                raise TimeoutError(f"{self.host}: {address} did not reach the kernel")
            return self.seen[address]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def measure(api: Api, hosts: list[str], rounds: int) -> Iterator[Figure]:
    """p99 over ``rounds`` changes of the slowest host, against the p99 of a bare element change on one host."""
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    kernels = [Kernel(host) for host in hosts]
    try:
        service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "protocol": "TCP"}]}}
        api.call("POST", f"/api/v1/namespaces/{NAMESPACE}/services", service)
        _settle(api, kernels)
        ours, bare = [], []
        for number in range(rounds):
            bare.append(_bare_s(hosts[0], kernels[0], number))
            ours.append(_change_s(api, kernels, ADDRESSES[number % 2]))
        name = f"endpoint change -> kernel of {len(hosts)} hosts, p99"
        yield Figure(name, percentile(ours, 99) * 1e3, "ms", percentile(bare, 99) * 1e3, 100, "excess")
    finally:
        for kernel in kernels:
            kernel.close()
        output(in_host(hosts[0], "sh", "-c", "nft delete table inet bench 2>/dev/null || true"))
        api.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def _settle(api: Api, kernels: list[Kernel]) -> None:
    """First endpoint, so that monitors and maps are known to work before the clock counts."""
    body = {
        "metadata": {"name": "s-1", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
    }
    api.call("POST", SLICES, body)
    output(in_host(kernels[0].host, "nft", "add table inet bench; add set inet bench s { type ipv4_addr; }"))
    time.sleep(1)
    _change_s(api, kernels, ADDRESSES[1])


def _change_s(api: Api, kernels: list[Kernel], address: str) -> float:
    patch = {"endpoints": [{"addresses": [address], "conditions": {"ready": True}}]}
    started = time.monotonic()
    api.call("PATCH", f"{SLICES}/s-1", patch, "application/merge-patch+json")
    return max(kernel.wait_after(address, started) for kernel in kernels) - started


def _bare_s(host: str, kernel: Kernel, number: int) -> float:
    address = f"192.0.2.{number % 250 + 1}"
    script = (
        "import subprocess,time; s=time.monotonic();"
        f"subprocess.run(['nft','add element inet bench s {{ {address} }}'],check=True);"
        "print(time.monotonic()-s)"
    )
    seconds = float(output(in_host(host, "python3", "-c", script)))
    output(in_host(host, "nft", f"delete element inet bench s {{ {address} }}"))
    return seconds

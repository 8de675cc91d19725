"""Latency of API requests against the same on etcd itself: what admission, validation, cache and HTTP cost."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator

from common.settings import TlsFiles
from controller.store.etcd import Etcd
from controller.store.proto import etcd_pb2 as pb
from sphere.layout import Layout
from tests.bench.cluster import ROOT, Api, in_machine, output
from tests.bench.figures import Figure, median

NAMESPACE = "bench-requests"
MAPS = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
KEY = b"/bench/request"
VALUE = {"data": {"text": "x" * 500}}


def measure(api: Api, rounds: int) -> Iterator[Figure]:
    """Medians; what a get and a list cost is compared with one range read of etcd."""
    command = [sys.executable, "-m", "tests.bench.requests", str(rounds)]
    floor = json.loads(output(in_machine("control", "env", f"PYTHONPATH={ROOT}", *command)))
    with api.namespace(NAMESPACE):

        def create(number: int) -> None:
            api.call("POST", MAPS, {"metadata": {"name": f"m-{number}"}, **VALUE})

        yield Figure("API create, p50", _timed(create, rounds) * 1e3, "ms", floor["put"] * 1e3, None, "ratio")
        get_s = _timed(lambda number: api.call("GET", f"{MAPS}/m-{number}"), rounds)
        yield Figure("API get, p50", get_s * 1e3, "ms", floor["get"] * 1e3, None, "ratio")
        list_s = _timed(lambda _: api.call("GET", MAPS), rounds)
        yield Figure(f"API list of {rounds}, p50", list_s * 1e3, "ms", floor["get"] * 1e3, None, "ratio")


def _timed(work: Callable[[int], object], rounds: int) -> float:
    samples = []
    for number in range(rounds):
        started = time.monotonic()
        work(number)
        samples.append(time.monotonic() - started)
    return median(samples)


async def _raw(rounds: int) -> dict[str, float]:
    """p50 of a put and a get, in seconds, on the machine of etcd."""
    pki = Layout.default().pki
    etcd = Etcd(
        ["https://127.0.0.1:2379"],
        TlsFiles(ca=pki / "ca.crt", cert=pki / "controller.crt", key=pki / "controller.key"),
    )
    value = json.dumps(VALUE).encode()
    put = pb.TxnRequest(success=[pb.RequestOp(request_put=pb.PutRequest(key=KEY, value=value))])
    drop = pb.TxnRequest(success=[pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=KEY))])
    samples: dict[str, list[float]] = {"put": [], "get": []}
    try:
        await etcd.status()
        for _ in range(rounds):
            started = time.monotonic()
            await etcd.txn(put)
            samples["put"].append(time.monotonic() - started)
            started = time.monotonic()
            await etcd.range(KEY)
            samples["get"].append(time.monotonic() - started)
    finally:
        await etcd.txn(drop)
        await etcd.close()
    return {name: median(values) for name, values in samples.items()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_raw(int(sys.argv[1])))))

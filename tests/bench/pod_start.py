"""Pod create -> Ready on a watch, one at a time, against the bare runtime start on the same host in the same run."""

import json
import sys
import time
import uuid
from collections.abc import Iterator

from tests.bench.bare_pod import IMAGE
from tests.bench.cluster import ROOT, Api, in_host, output
from tests.bench.figures import Figure, median

NAMESPACE = "bench-pod-start"
HOST = "host-1"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


def measure(api: Api, rounds: int) -> Iterator[Figure]:
    """Alternate: one bare start, one pod; medians of all rounds."""
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    try:
        _wait_service_account(api)
        _pod_s(api)
        bare, pods = [], []
        for _ in range(rounds):
            bare.append(_bare_s())
            pods.append(_pod_s(api))
        yield Figure(
            "pod create -> Ready, one at a time, p50", median(pods) * 1e3, "ms", median(bare) * 1e3, 3, "ratio"
        )
    finally:
        api.call("DELETE", f"/api/v1/namespaces/{NAMESPACE}")


def _wait_service_account(api: Api) -> None:
    for event in api.watch(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts?watch=1&timeoutSeconds=30"):
        if event["object"]["metadata"]["name"] == "default":
            return
    raise RuntimeError("the namespace got no default service account")


def _bare_s() -> float:
    answer = output(in_host(HOST, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench.bare_pod"))
    return float(json.loads(answer.splitlines()[-1])["seconds"])


def _pod_s(api: Api) -> float:
    name = f"p-{uuid.uuid4().hex[:8]}"
    pod = {
        "metadata": {"name": name},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": HOST},
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"]}
            ],
        },
    }
    version = api.call("GET", PODS)["metadata"]["resourceVersion"]
    events = api.watch(f"{PODS}?watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={version}")
    started = time.monotonic()
    api.call("POST", PODS, pod)
    for event in events:
        conditions = event["object"].get("status", {}).get("conditions", [])
        if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            break
    seconds = time.monotonic() - started
    api.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    for event in events:
        if event["type"] == "DELETED":
            break
    return seconds

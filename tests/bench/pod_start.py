"""Pod create -> Ready on a watch, one at a time, against the bare runtime start on the same host in the same run."""

import json
import sys
import time
import uuid
from collections.abc import Iterator

from tests.bench.bare_pod import IMAGE
from tests.bench.cluster import ROOT, Api, Object, in_machine, output
from tests.bench.figures import Figure, median

NAMESPACE = "bench-pods"
HOST = "host-1"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
BURST = 20


def measure(api: Api, rounds: int) -> Iterator[Figure]:
    """Alternate: one bare start, one pod; medians of all rounds. Then many pods at once, on all hosts."""
    with api.namespace(NAMESPACE):
        _pod_s(api)
        bare, starts, ends = [], [], []
        for _ in range(rounds):
            bare.append(_bare_s())
            start_s, end_s = _pod_s(api)
            starts.append(start_s)
            ends.append(end_s)
        yield Figure(
            "pod create -> Ready, one at a time, p50", median(starts) * 1e3, "ms", median(bare) * 1e3, 3, "ratio"
        )
        yield Figure("pod delete (no grace) -> gone, p50", median(ends) * 1e3, "ms")
        yield Figure(f"{BURST} pods at once", BURST / _burst_s(api), "pods/s")


def _bare_s() -> float:
    answer = output(in_machine(HOST, "env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "tests.bench.bare_pod"))
    return float(json.loads(answer.splitlines()[-1])["seconds"])


def _pod(**spec: object) -> Object:
    container = {"name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "600"]}
    return {
        "metadata": {"name": f"p-{uuid.uuid4().hex[:8]}"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container], **spec},
    }


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _pod_s(api: Api) -> tuple[float, float]:
    """Seconds from create to Ready, and from delete to gone."""
    pod = _pod(nodeSelector={"kubernetes.io/hostname": HOST})
    name = pod["metadata"]["name"]
    query = f"watch=1&fieldSelector=metadata.name%3D{name}&resourceVersion={api.version(PODS)}&timeoutSeconds=60"
    events = api.watch(f"{PODS}?{query}")
    started = time.monotonic()
    api.call("POST", PODS, pod)
    if not any(_is_ready(event["object"]) for event in events):
        raise RuntimeError(f"pod {name} did not become Ready; see `kubectl describe`")
    ready_s = time.monotonic() - started
    started = time.monotonic()
    api.call("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
    if not any(event["type"] == "DELETED" for event in events):
        raise RuntimeError(f"pod {name} was not removed")
    return ready_s, time.monotonic() - started


def _burst_s(api: Api) -> float:
    pods = [_pod() for _ in range(BURST)]
    waiting = {pod["metadata"]["name"] for pod in pods}
    events = api.watch(f"{PODS}?watch=1&resourceVersion={api.version(PODS)}&timeoutSeconds=120")
    started = time.monotonic()
    for pod in pods:
        api.call("POST", PODS, pod)
    for event in events:
        if _is_ready(event["object"]):
            waiting.discard(event["object"]["metadata"]["name"])
            if not waiting:
                return time.monotonic() - started
    raise RuntimeError(f"{len(waiting)} of {BURST} pods did not become Ready")

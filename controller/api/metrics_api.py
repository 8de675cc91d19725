"""``metrics.k8s.io``: what ``kubectl top`` shows, asked of the spherelets when somebody wants to know."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import aiohttp
import orjson

from common.clock import Clock
from common.selectors import InvalidSelector, parse_label_selector
from controller.api.api import Call, Routes
from controller.api.request import Answer, Reply
from controller.api.spherelets import Spherelets
from controller.api.status import ApiError, bad_request, method_not_allowed, not_found
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.own_schemas import METRICS_GROUP

NODES: Final = ResourceKey("", "nodes")
PODS: Final = ResourceKey("", "pods")
NODE_METRICS: Final = ResourceKey(METRICS_GROUP, "nodes")
POD_METRICS: Final = ResourceKey(METRICS_GROUP, "pods")
KEPT_S: Final = 5.0
ASK_TIMEOUT_S: Final = 4.0
_VERSION: Final = f"{METRICS_GROUP}/v1beta1"
_WINDOW: Final = "10s"


def install(routes: Routes, spherelets: Spherelets, clock: Clock) -> None:
    """Serve nodes and pods of the group."""
    metrics = _Metrics(spherelets, clock)
    routes.resources[NODE_METRICS] = metrics.nodes
    routes.resources[POD_METRICS] = metrics.pods


class _Metrics:
    def __init__(self, spherelets: Spherelets, clock: Clock) -> None:
        self._spherelets = spherelets
        self._clock = clock
        self._kept: dict[str, tuple[float, Object]] = {}

    async def _summary(self, node: str) -> Object | None:
        """A node's ``/stats/summary``, at most ``KEPT_S`` old; None when it does not answer."""
        kept = self._kept.get(node)
        if kept is not None and self._clock.monotonic() - kept[0] < KEPT_S:
            return kept[1]
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                response = await self._spherelets.open(self._spherelets.endpoint(node), "GET", "/stats/summary")
                async with response:
                    if response.status != 200:
                        return None
                    found: Object = orjson.loads(await response.read())
        except (ApiError, TimeoutError, aiohttp.ClientError, ValueError):
            return None
        self._kept[node] = (self._clock.monotonic(), found)
        return found

    async def _summaries(self, nodes: Iterable[str]) -> dict[str, Object]:
        async with asyncio.TaskGroup() as group:
            tasks = {node: group.create_task(self._summary(node)) for node in nodes}
        found = {node: task.result() for node, task in tasks.items()}
        return {node: summary for node, summary in found.items() if summary is not None}

    async def nodes(self, call: Call) -> Answer:
        request, cache = call.request, call.api.ports.cache
        if request.verb not in ("get", "list"):
            raise method_not_allowed()
        entries = [entry for entry in cache.list(NODES) if request.verb == "list" or entry.name == request.target.name]
        selected = _selected(request.text("labelSelector"), entries)
        summaries = await self._summaries(entry.name for entry in selected)
        items = [node_metrics(e.name, e.labels, summaries[e.name]) for e in selected if e.name in summaries]
        if request.verb == "list":
            return _list("NodeMetricsList", items)
        if not items:
            raise not_found(NODE_METRICS, request.target.name)
        return Reply(200, orjson.dumps(items[0]))

    async def pods(self, call: Call) -> Answer:
        request, cache = call.request, call.api.ports.cache
        if request.verb not in ("get", "list"):
            raise method_not_allowed()
        namespace = request.target.namespace or None
        entries = [e for e in cache.list(PODS, namespace) if request.verb == "list" or e.name == request.target.name]
        selected = _selected(request.text("labelSelector"), entries)
        nodes = {entry.fields.get("spec.nodeName", "") for entry in selected} - {""}
        measured: dict[str, Object] = {}
        for summary in (await self._summaries(sorted(nodes))).values():
            for pod in summary.get("pods") or []:
                measured[str((pod.get("podRef") or {}).get("uid"))] = pod
        items = [pod_metrics(e.namespace, e.name, e.labels, measured[e.uid]) for e in selected if e.uid in measured]
        if request.verb == "list":
            return _list("PodMetricsList", items)
        if not items:
            raise not_found(POD_METRICS, request.target.name)
        return Reply(200, orjson.dumps(items[0]))


def _selected(selector: str, entries: list[Any]) -> list[Any]:
    try:
        wanted = parse_label_selector(selector)
    except InvalidSelector as err:
        raise bad_request(str(err)) from err
    return [entry for entry in entries if wanted.matches(entry.labels)]


def _list(kind: str, items: list[Object]) -> Reply:
    return Reply(200, orjson.dumps({"kind": kind, "apiVersion": _VERSION, "metadata": {}, "items": items}))


def usage_of(stats: Object) -> Object:
    """``{"cpu": "12345n", "memory": "6789Ki"}`` of a node, pod or container in the Summary API."""
    cpu, memory = stats.get("cpu") or {}, stats.get("memory") or {}
    working_set = int(memory.get("workingSetBytes") or 0)
    return {"cpu": f"{int(cpu.get('usageNanoCores') or 0)}n", "memory": f"{working_set // 1024}Ki"}


def _head(kind: str, metadata: Object, stats: Object) -> Object:
    stamp = (stats.get("cpu") or {}).get("time")
    metadata["creationTimestamp"] = stamp
    return {"kind": kind, "apiVersion": _VERSION, "metadata": metadata, "timestamp": stamp, "window": _WINDOW}


def node_metrics(name: str, labels: Any, summary: Object) -> Object:
    """``NodeMetrics`` from a node's summary."""
    stats: Object = summary.get("node") or {}
    return {**_head("NodeMetrics", {"name": name, "labels": dict(labels)}, stats), "usage": usage_of(stats)}


def pod_metrics(namespace: str, name: str, labels: Any, stats: Object) -> Object:
    """``PodMetrics`` from one pod of a summary."""
    containers = [{"name": each.get("name"), "usage": usage_of(each)} for each in stats.get("containers") or []]
    dated = stats if stats.get("cpu") else next(iter(stats.get("containers") or []), {})
    metadata = {"name": name, "namespace": namespace, "labels": dict(labels)}
    return {**_head("PodMetrics", metadata, dated), "containers": containers}

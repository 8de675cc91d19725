"""Pods that the API wants on this host, from one watch. Callbacks only change the record and mark it dirty.

In-sync gate: a pod that is on disk but not in the API is unwanted only once a whole list has been heard.
"""

from collections.abc import Callable
from pathlib import Path

from common.clock import Clock
from common.kube import KubeClient, Object
from common.logs import logger
from spherelet.model import PodView
from spherelet.observed import Record

PATH = "/api/v1/pods"
log = logger("desired")


class Desired:
    """Keeps ``records`` in step with the API."""

    def __init__(
        self, records: dict[str, Record], pods_dir: Path, host: str, clock: Clock, dirty: Callable[[str], None]
    ) -> None:
        self._records = records
        self._pods_dir = pods_dir
        self._host = host
        self._clock = clock
        self._dirty = dirty
        self.in_sync = False

    async def run(self, kube: KubeClient) -> None:
        """Follow the API until cancelled."""
        await kube.follow(PATH, {"fieldSelector": f"spec.nodeName={self._host}"}, self.replace, self.change)

    def replace(self, pods: list[Object]) -> None:
        """Everything the API has. From here on, what it does not have is unwanted."""
        for pod in pods:
            self._want(pod)
        listed = {pod["metadata"]["uid"] for pod in pods}
        for uid, record in self._records.items():
            if uid not in listed:
                self._unwant(record)
        self.in_sync = True
        for uid in self._records:
            self._dirty(uid)

    def change(self, kind: str, pod: Object) -> None:
        """One change. A pod whose node is another one is not ours."""
        uid = pod["metadata"]["uid"]
        if kind == "DELETED":
            if uid in self._records:
                self._unwant(self._records[uid])
                self._dirty(uid)
            return
        self._want(pod)
        self._dirty(uid)

    def _want(self, pod: Object) -> None:
        if (pod.get("spec") or {}).get("nodeName") != self._host:
            return
        pod.setdefault("apiVersion", "v1")
        pod.setdefault("kind", "Pod")
        uid = pod["metadata"]["uid"]
        record = self._records.get(uid)
        if record is None:
            record = Record(uid=uid, directory=self._pods_dir / uid, pod=pod, seen_at=self._clock.now())
            self._records[uid] = record
            return
        changed = _lasting(record.pod) != _lasting(pod)
        for each in PodView(pod).containers:
            before = record.view.container(each.name)
            if before is not None and before.image != each.image:
                record.images.pop(each.name, None)
                record.image_failures.pop(each.name, None)
                record.redefined_at = self._clock.now()
        if _shown(record.pod) != _shown(pod):
            record.volumes = None  # set up again, which rewrites only files whose content differs
            record.retry_configuration(self._clock.now())
        record.pod = pod
        record.wanted = True
        if changed and record.on_disk:
            try:
                record.save_pod()
            except OSError as err:  # only what must be known without the API is old until the next change
                log.warning("pod not remembered", pod=record.view.key, reason=str(err))

    def _unwant(self, record: Record) -> None:
        record.wanted = False


def _lasting(pod: Object) -> object:
    """What of a pod is worth writing to disk again when it changes."""
    metadata = pod["metadata"]
    keys = ("labels", "annotations", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
    return pod.get("spec"), [metadata.get(key) for key in keys]


def _shown(pod: Object) -> object:
    """What of a pod its own downward API volumes may show, and may change while it runs."""
    return pod["metadata"].get("labels"), pod["metadata"].get("annotations")

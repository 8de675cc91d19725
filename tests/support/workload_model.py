"""A model registry with nodes, one workload and its pods, which start, become ready, fail and end as a test says."""

from collections.abc import Iterable
from typing import Any

from common.clock import rfc3339
from controller.kinds.kind import Object, ResourceKey
from controller.reconcilers import pods
from controller.runtime.reconciler import Reconciler
from controller.runtime.resources import NODES, PODS
from tests.support.model_registry import ModelRegistry

NAMESPACE, NAME = "d", "web"
KEY = f"{NAMESPACE}/{NAME}"


class WorkloadModel:
    """``reconciler`` works on one object of ``resource``, named ``web`` in namespace ``d``."""

    def __init__(self, reconciler: Reconciler, resource: ResourceKey, kind: str, group: str, spec: Object) -> None:
        self.reconciler = reconciler
        self.resource = resource
        self.registry = ModelRegistry()
        self.registry.linger = True
        labels = {"app": NAME}
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "v1"}], **spec.pop("pod", {})},
        }
        obj: Object = {
            "apiVersion": f"{group}/v1",
            "kind": kind,
            "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
        }
        self.registry.put(resource, obj)

    # The workload

    def object(self) -> Object:
        found = self.registry.get(self.resource, NAMESPACE, NAME)
        assert found is not None
        return found.decode()

    @property
    def status(self) -> Object:
        found: Object = self.object().get("status") or {}
        return found

    def change(self, image: str = "", **spec: Any) -> None:
        obj = self.object()
        obj["spec"].update(spec)
        if image:
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = image
        self.registry.put(self.resource, obj)

    def step(self, writes_max: int | None = None) -> int:
        return self.registry.run(self.reconciler, KEY, writes_max)

    def settle(self) -> None:
        self.registry.settle(lambda: [(self.reconciler, KEY)])

    # Nodes

    def add_node(self, name: str, *taints: Object, **labels: str) -> None:
        known = self.registry.get(NODES, "", name)
        node: Object = known.decode() if known else {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        node["metadata"]["labels"] = labels
        node["spec"] = {"taints": list(taints)}
        self.registry.put(NODES, node)

    # Pods

    def pods(self) -> list[Object]:
        return [entry.decode() for entry in self.registry.list(PODS)]

    def active(self) -> list[Object]:
        return [pod for pod in self.pods() if pods.is_active(pod)]

    def images(self, found: Iterable[Object]) -> list[str]:
        return [pod["spec"]["containers"][0]["image"] for pod in found]

    def bind(self, pod: Object, node: str) -> Object:
        """As the scheduler does."""
        return self.registry.put(PODS, {**pod, "spec": {**pod["spec"], "nodeName": node}})

    def report(self, pod: Object, phase: str = "Running", *, ready: bool = True, **status: Any) -> None:
        """As its host does."""
        listed = [
            {
                "type": "Ready",
                "status": "True" if ready and phase == "Running" else "False",
                "lastTransitionTime": rfc3339(self.registry.now),
            },
            *status.pop("conditions", []),
        ]
        self.registry.put(PODS, {**pod, "status": {"phase": phase, "conditions": listed, **status}})

    def run(self, pod: Object, node: str) -> None:
        """Bound, started, ready."""
        self.report(self.bind(pod, node))

    def let_go(self, pod: Object) -> None:
        """Its containers have stopped."""
        self.registry.finish(PODS, NAMESPACE, pod["metadata"]["name"])

"""Every served kind. Adding a kind is adding its file and one line here."""

from collections.abc import Iterable, Sequence
from typing import Final

from controller.kinds import (
    admission_registration,
    autoscaling,
    batch,
    breadth,
    certificates,
    config,
    coordination,
    core,
    custom_definition,
    discovery,
    dynamic_resources,
    events,
    flow_control,
    ingress,
    limits,
    network,
    network_policy,
    node,
    pod,
    pod_template,
    policy,
    rbac,
    runtime_class,
    scheduling,
    service,
    sets,
    storage,
    virtual,
    workloads,
)
from controller.kinds.kind import Kind, ResourceKey


class Registry:
    """Look-ups over kinds. Immutable once built, but for kinds that users define: ``add``, ``remove``."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_key: dict[ResourceKey, Kind] = {}
        self._by_path: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def fork(self) -> "Registry":
        """A copy that changes on its own: what users define in one cluster is nobody else's."""
        return Registry(self._by_path.values())

    def add(self, kind: Kind) -> None:
        """Serve ``kind`` from now on. The first version of a resource is its storage version; a kind without verbs is
        stored, but not served."""
        self._by_key.setdefault(kind.key, kind)
        if not kind.verbs:
            return
        self._by_path[kind.group, kind.version, kind.plural] = kind

    def remove(self, key: ResourceKey) -> None:
        """Forget every version of a resource."""
        self._by_key.pop(key, None)
        for kind in [each for each in self._by_path.values() if each.key == key]:
            del self._by_path[kind.group, kind.version, kind.plural]

    def by_key(self, key: ResourceKey) -> Kind:
        """The kind stored under ``key``. Raises ``KeyError``."""
        return self._by_key[key]

    def all(self) -> Sequence[Kind]:
        """Every kind, in the order of registration (also that of discovery)."""
        return list(self._by_path.values())

    def lookup(self, group: str, version: str, plural: str) -> Kind | None:
        """By request path."""
        return self._by_path.get((group, version, plural))


REGISTRY: Final = Registry(
    [
        *core.KINDS,
        *config.KINDS,
        *limits.KINDS,
        *events.CORE_KINDS,
        *node.KINDS,
        *pod.KINDS,
        *service.KINDS,
        *workloads.KINDS,
        *sets.KINDS,
        *batch.KINDS,
        *rbac.KINDS,
        *network_policy.KINDS,
        *discovery.KINDS,
        *coordination.KINDS,
        *network.KINDS,
        *autoscaling.KINDS,
        *events.NEW_KINDS,
        *custom_definition.KINDS,
        *certificates.KINDS,
        *scheduling.KINDS,
        *storage.KINDS,
        *pod_template.KINDS,
        *policy.KINDS,
        *ingress.KINDS,
        *runtime_class.KINDS,
        *admission_registration.KINDS,
        *flow_control.KINDS,
        *dynamic_resources.KINDS,
        *breadth.KINDS,
        *virtual.KINDS,
    ]
)

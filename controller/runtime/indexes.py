"""Groups of cache entries: a plan costs what it looks at, not what the cluster holds. Pure.

A group's name starts with what it is a group by. An entry may be in any number of groups; which ones depends on the
entry alone, so that the old version of an entry says what to leave.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from common.selectors import LabelSelector, Operator
from controller.kinds import claims
from controller.kinds.kind import ResourceKey
from controller.runtime.resources import (
    ADDRESS_BLOCKS,
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PLAIN_SELECTORS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PORTS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICES,
    STATEFUL_SETS,
)
from controller.store.entry import Entry

SERVICE_NAME: Final = "kubernetes.io/service-name"
FINISHED: Final = ("Succeeded", "Failed")
_SELECTING: Final = (
    SERVICES,
    REPLICATION_CONTROLLERS,
    REPLICA_SETS,
    DEPLOYMENTS,
    DAEMON_SETS,
    STATEFUL_SETS,
    JOBS,
    POD_DISRUPTION_BUDGETS,
)
_ADOPTABLE: Final = frozenset((PODS, REPLICA_SETS, CONTROLLER_REVISIONS))


def owned_by(uid: str) -> str:
    return f"owner/{uid}"


def orphans(resource: ResourceKey, namespace: str) -> str:
    """Objects without any owner, of the kinds that controllers adopt."""
    return f"orphan/{resource}/{namespace}"


def on_node(node: str) -> str:
    return f"node/{node}"


def finished() -> str:
    return "finished"


def labelled(namespace: str, name: str, value: str) -> str:
    """Pods with this label."""
    return f"label/{namespace}/{name}={value}"


def selecting(resource: ResourceKey, namespace: str, pair: str) -> str:
    """Objects whose selector asks for the label ``pair``; ``*`` for those that ask for no single value."""
    return f"selecting/{resource}/{namespace}/{pair}"


def slices_of(namespace: str, service: str) -> str:
    return f"slice/{namespace}/{service}"


def blocks_of(segment: str) -> str:
    return f"block/{segment}"


def port_of(pod_uid: str) -> str:
    return f"port/{pod_uid}"


def using(namespace: str, claim: str) -> str:
    """Pods that use a claim on a volume."""
    return f"using/{namespace}/{claim}"


def unbound_claims() -> str:
    """Claims that have no volume yet."""
    return "unbound"


def volumes_for(namespace: str, claim: str) -> str:
    """Volumes that are kept for a claim of this name."""
    return f"volume/{namespace}/{claim}"


def free_volumes(storage_class: str) -> str:
    """Volumes of a class that are kept for nobody."""
    return f"free/{storage_class}"


def pair_of(selector: LabelSelector) -> tuple[str, str] | None:
    """A label that whatever is selected must have; None when the selector asks for no single value."""
    pairs = (
        (each.key, each.values[0])
        for each in selector.requirements
        if each.operator is Operator.IN and len(each.values) == 1
    )
    return min(pairs, default=None)


def _of_pod(entry: Entry) -> Iterable[str]:
    yield on_node(entry.fields.get("spec.nodeName", ""))
    if entry.fields.get("status.phase", "") in FINISHED:
        yield finished()
    for name, value in entry.labels.items():
        yield labelled(entry.namespace, name, value)
    if b'"persistentVolumeClaim":' in entry.body or b'"ephemeral":' in entry.body:
        for use in claims.uses(entry.decode()):
            yield using(entry.namespace, use.claim)


def _of_selecting(entry: Entry) -> Iterable[str]:
    spec: Mapping[str, Any] = entry.decode().get("spec") or {}
    selector = spec.get("selector") or {}
    wanted = selector if entry.resource in PLAIN_SELECTORS else selector.get("matchLabels") or {}
    pair = min(wanted.items(), default=None)
    yield selecting(entry.resource, entry.namespace, f"{pair[0]}={pair[1]}" if pair else "*")


def _of_slice(entry: Entry) -> Iterable[str]:
    if SERVICE_NAME in entry.labels:
        yield slices_of(entry.namespace, entry.labels[SERVICE_NAME])


def _of_claim(entry: Entry) -> Iterable[str]:
    if not claims.volume_of(entry.decode()):
        yield unbound_claims()


def _of_volume(entry: Entry) -> Iterable[str]:
    volume = entry.decode()
    kept_for = volume["spec"].get("claimRef")
    if kept_for:
        yield volumes_for(kept_for.get("namespace", ""), kept_for.get("name", ""))
    else:
        yield free_volumes(claims.class_of(volume) or "")


_BY_RESOURCE: Final[Mapping[ResourceKey, Callable[[Entry], Iterable[str]]]] = {
    PODS: _of_pod,
    ENDPOINT_SLICES: _of_slice,
    ADDRESS_BLOCKS: lambda entry: (blocks_of(entry.fields.get("spec.segment", "")),),
    PERSISTENT_VOLUME_CLAIMS: _of_claim,
    PERSISTENT_VOLUMES: _of_volume,
    PORTS: lambda entry: (port_of(entry.fields.get("spec.podUID", "")),),
    **dict.fromkeys(_SELECTING, _of_selecting),
}


def groups_of(entry: Entry) -> list[str]:
    """Every group that the entry is in."""
    found = [owned_by(uid) for uid in entry.owners]
    if not entry.owners and entry.resource in _ADOPTABLE:
        found.append(orphans(entry.resource, entry.namespace))
    more = _BY_RESOURCE.get(entry.resource)
    return [*found, *more(entry)] if more is not None else found


class Index:
    """The groups, kept current by cache changes."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[str, Entry]] = {}

    def put(self, entry: Entry, old: Entry | None) -> None:
        wanted = groups_of(entry)
        if old is not None:
            self._leave(entry.key, set(groups_of(old)).difference(wanted))
        for group in wanted:
            self._groups.setdefault(group, {})[entry.key] = entry

    def drop(self, entry: Entry) -> None:
        self._leave(entry.key, groups_of(entry))

    def _leave(self, key: str, groups: Iterable[str]) -> None:
        for name in groups:
            group = self._groups.get(name)
            if group is not None:
                group.pop(key, None)
                if not group:
                    del self._groups[name]

    def get(self, group: str) -> list[Entry]:
        """Sorted by etcd key, so that no plan depends on arrival order."""
        found = self._groups.get(group)
        return [found[key] for key in sorted(found)] if found else []

    def size(self, group: str) -> int:
        return len(self._groups.get(group, ()))

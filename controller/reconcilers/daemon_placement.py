"""Which nodes a DaemonSet's pods belong on, and what ties a pod to its node. Pure."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from controller.kinds.kind import Object
from controller.reconcilers import pods
from controller.reconcilers.replicaset import pod_from
from controller.scheduler.filters import node_affinity, tolerated
from controller.scheduler.model import NodeState, PodNeeds, Taint, needs_of

_EXECUTE = ("not-ready", "unreachable")
_SCHEDULE = ("disk-pressure", "memory-pressure", "pid-pressure", "unschedulable")


@dataclass(frozen=True, slots=True)
class Fit:
    """``run``: a pod belongs there. ``stay``: one that is there may stay."""

    run: bool
    stay: bool


def tolerations(template_spec: Object) -> list[Object]:
    """What a daemon bears besides what its template says: it comes first to a node and leaves it last."""
    found = [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute"} for key in _EXECUTE]
    names = [*_SCHEDULE, *(["network-unavailable"] if template_spec.get("hostNetwork") else [])]
    found += [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoSchedule"} for key in names]
    given: list[Object] = template_spec.get("tolerations") or []
    return [*given, *(each for each in found if each not in given)]


def wants_of(daemon_set: Object) -> PodNeeds:
    """A pod of the template, as the scheduler would judge it on any node."""
    spec = copy.deepcopy(daemon_set["spec"]["template"].get("spec") or {})
    spec["tolerations"] = tolerations(spec)
    meta = {"uid": "", "namespace": daemon_set["metadata"]["namespace"], "name": ""}
    return needs_of({"metadata": meta, "spec": spec})


def fit(wants: PodNeeds, node_name: str, node: Object) -> Fit:
    """``node_name`` is the template's own ``spec.nodeName``, mostly empty."""
    name, spec = node["metadata"]["name"], node.get("spec") or {}
    taints = tuple(Taint(each["key"], each.get("value", ""), each["effect"]) for each in spec.get("taints") or ())
    state = NodeState(
        name=name,
        labels=node["metadata"].get("labels") or {},
        taints=taints,
        unschedulable=False,
        allocatable={},
        requested={},
        host_ports=(),
        owners={},
    )
    if node_name not in ("", name) or node_affinity(wants, state):
        return Fit(run=False, stay=False)
    against = [each.effect for each in taints if not tolerated(wants, each)]
    return Fit("NoSchedule" not in against and "NoExecute" not in against, "NoExecute" not in against)


def daemon_pod(daemon_set: Object, name: str, node: str, revision_label: str, digest: str) -> Object:
    """A pod for ``node``. The scheduler binds it: nothing but the node's name is required any more."""
    pod = pod_from(daemon_set, name)
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), revision_label: digest}
    spec = pod["spec"]
    spec["tolerations"] = tolerations(spec)
    term = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity = spec.setdefault("affinity", {}).setdefault("nodeAffinity", {})
    affinity["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [term]}
    return pod


def target_of(pod: Object) -> str:
    """The node that a daemon pod is on, or is meant for; empty when nothing says."""
    bound = pods.node_of(pod)
    if bound:
        return bound
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    terms: Sequence[Object] = required.get("nodeSelectorTerms") or ()
    for field in (terms[0].get("matchFields") or ()) if len(terms) == 1 else ():
        if field.get("key") == "metadata.name" and field.get("operator") == "In" and len(field["values"]) == 1:
            return str(field["values"][0])
    return ""

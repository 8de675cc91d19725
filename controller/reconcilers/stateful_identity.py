"""What makes a StatefulSet's pod the one that it is: name, ordinal, host name, volume claims. Pure."""

import copy
import re
from collections.abc import Sequence

from controller.kinds.kind import Object
from controller.reconcilers import owners, pods
from controller.reconcilers.history import REVISION_HASH
from controller.reconcilers.replicaset import pod_from
from controller.runtime.resources import PERSISTENT_VOLUME_CLAIMS
from controller.runtime.view import View
from controller.runtime.writes import Create, EmitEvent, Patch, Write

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_ORDINAL = re.compile(r"(.+)-(0|[1-9][0-9]{0,8})")


def ordinal_of(stateful_set: Object, pod_name: str) -> int | None:
    """The ordinal in the name; None when it is no name of a pod of this set."""
    found = _ORDINAL.fullmatch(pod_name)
    return int(found[2]) if found is not None and found[1] == stateful_set["metadata"]["name"] else None


def name_of(stateful_set: Object, ordinal: int) -> str:
    return f"{stateful_set['metadata']['name']}-{ordinal}"


def member_pod(stateful_set: Object, template: Object, ordinal: int, revision: str) -> Object:
    """The pod of ``ordinal`` as ``revision`` wants it."""
    spec = stateful_set["spec"]
    name = name_of(stateful_set, ordinal)
    pod = pod_from({**stateful_set, "spec": {**spec, "template": template}}, name)
    ours = {POD_NAME: name, POD_INDEX: str(ordinal), REVISION_HASH: revision}
    pod["metadata"]["labels"] = {**(pod["metadata"].get("labels") or {}), **ours}
    pod["spec"]["hostname"] = name
    if spec.get("serviceName"):
        pod["spec"]["subdomain"] = spec["serviceName"]
    claims = [each["metadata"]["name"] for each in spec.get("volumeClaimTemplates") or ()]
    if claims:
        kept = [each for each in pod["spec"].get("volumes") or () if each["name"] not in claims]
        mounted = [{"name": each, "persistentVolumeClaim": {"claimName": f"{each}-{name}"}} for each in claims]
        pod["spec"]["volumes"] = [*mounted, *kept]
    return pod


def claims_of(view: View, stateful_set: Object, ordinal: int, pod: Object | None) -> tuple[list[Write], bool]:
    """Writes that make the claims of ``ordinal`` be there, owned as the retention policy says.

    ``pod`` is the pod that is to go for good (its claims may go with it), or None. The answer's second part says
    whether a claim is on its way out, so that a new pod must wait.
    """
    meta, spec = stateful_set["metadata"], stateful_set["spec"]
    writes: list[Write] = []
    going = False
    for template in spec.get("volumeClaimTemplates") or ():
        name = f"{template['metadata']['name']}-{meta['name']}-{ordinal}"
        known = view.get(PERSISTENT_VOLUME_CLAIMS, meta["namespace"], name)
        if known is not None:
            going = going or pods.is_deleting(known)
            have: list[Object] = known["metadata"].get("ownerReferences") or []
            wanted = [*_foreign(have, stateful_set, ordinal), *_claim_owners(stateful_set, pod)]
            if wanted != have:
                version = {"resourceVersion": known["metadata"]["resourceVersion"], "ownerReferences": wanted}
                writes.append(Patch(PERSISTENT_VOLUME_CLAIMS, meta["namespace"], name, {"metadata": version}))
        elif pod is None:
            labels = {**(template["metadata"].get("labels") or {}), **(spec["selector"].get("matchLabels") or {})}
            fresh: Object = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": meta["namespace"], "labels": labels},
                "spec": copy.deepcopy(template.get("spec") or {}),
            }
            references = _claim_owners(stateful_set, None)
            if references:
                fresh["metadata"]["ownerReferences"] = references
            text = f"create Claim {name} Pod {name_of(stateful_set, ordinal)} in StatefulSet {meta['name']} success"
            event = EmitEvent(stateful_set, "Normal", "SuccessfulCreate", text)
            writes.append(Create(PERSISTENT_VOLUME_CLAIMS, fresh, event))
    return writes, going


def _claim_owners(stateful_set: Object, pod: Object | None) -> list[Object]:
    """KEP-1847: with the pod when the set is scaled down, with the set when that is deleted, or with nobody."""
    policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if pod is not None and policy.get("whenScaled") == "Delete":
        return [owners.reference_to({**pod, "apiVersion": "v1", "kind": "Pod"})]
    return [owners.reference_to(stateful_set)] if policy.get("whenDeleted") == "Delete" else []


def _foreign(have: Sequence[Object], stateful_set: Object, ordinal: int) -> list[Object]:
    def ours(reference: Object) -> bool:
        pod = reference.get("kind") == "Pod" and reference.get("name") == name_of(stateful_set, ordinal)
        return bool(pod or reference.get("uid") == stateful_set["metadata"]["uid"])

    return [each for each in have if not ours(each)]

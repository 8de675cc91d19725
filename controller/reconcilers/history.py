"""ControllerRevisions: the templates that a DaemonSet or StatefulSet has had, numbered, for rollback. Pure.

Follows ``pkg/controller/history`` of Kubernetes: ``data`` is the patch that brings the template back, equal data is the
same revision, and a template that returns gets the next number.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from common.selectors import from_label_selector
from controller.kinds.kind import Object
from controller.reconcilers import owners, pods
from controller.reconcilers.adoption import claim
from controller.runtime.resources import CONTROLLER_REVISIONS
from controller.runtime.view import View
from controller.runtime.writes import Create, Delete, Patch, Write

REVISION_HASH = "controller-revision-hash"
LIMIT_DEFAULT = 10


@dataclass(frozen=True, slots=True)
class History:
    """Revisions by number. ``current`` None: it has to be made first (``writes``), or its name is taken."""

    current: Object | None
    revisions: tuple[Object, ...]
    writes: tuple[Write, ...]
    collides: bool = False


def data_of(owner: Object) -> Object:
    """What ``kubectl rollout undo`` applies to ``owner`` as a strategic merge patch."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def history_of(view: View, owner: Object, hash_label: str) -> History:
    """The revisions of ``owner``, with the writes that make its template one of them.

    ``hash_label`` is the label of a revision that holds its hash.
    """
    meta, spec = owner["metadata"], owner["spec"]
    members = claim(view, owner, CONTROLLER_REVISIONS, from_label_selector(spec.get("selector")))
    revisions = tuple(sorted(members.owned, key=lambda each: (each["revision"], each["metadata"]["name"])))
    data = data_of(owner)
    last = max((each["revision"] for each in revisions), default=0)
    known = [each for each in revisions if each.get("data") == data]
    if members.adopted:
        return History(None, revisions, members.writes)
    if known:
        current = known[-1]
        if current["revision"] == last:
            return History(current, revisions, members.writes)
        change: Object = {"metadata": {"resourceVersion": current["metadata"]["resourceVersion"]}, "revision": last + 1}
        patch = Patch(CONTROLLER_REVISIONS, meta["namespace"], current["metadata"]["name"], change)
        return History({**current, "revision": last + 1}, revisions, (*members.writes, patch))
    collisions = (owner.get("status") or {}).get("collisionCount", 0)
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    digest = owners.safe_hash(f"{text}/{collisions}" if collisions else text, 10)
    name = f"{meta['name'][:223]}-{digest}"
    if view.entry(CONTROLLER_REVISIONS, meta["namespace"], name) is not None:
        return History(None, revisions, members.writes, collides=True)
    labels = {**((spec["template"].get("metadata") or {}).get("labels") or {}), hash_label: digest}
    fresh: Object = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owners.reference_to(owner)],
        },
        "data": data,
        "revision": last + 1,
    }
    if meta.get("annotations"):
        fresh["metadata"]["annotations"] = dict(meta["annotations"])
    return History(None, revisions, (*members.writes, Create(CONTROLLER_REVISIONS, fresh)))


def surplus(owner: Object, revisions: Sequence[Object], live: Collection[str]) -> list[Write]:
    """Deletions of the oldest revisions beyond the limit. ``live`` names those that pods are of, or will be."""
    limit = owner["spec"].get("revisionHistoryLimit", LIMIT_DEFAULT)
    unused = [each for each in revisions if each["metadata"]["name"] not in live and not pods.is_deleting(each)]
    return [
        Delete(CONTROLLER_REVISIONS, each["metadata"]["namespace"], each["metadata"]["name"], each["metadata"]["uid"])
        for each in unused[: max(0, len(unused) - limit)]
    ]

"""delete and deletecollection: preconditions, finalizers, propagation, graceful periods.

Spec: apiserver ``registry/rest/delete.go`` and ``registry/generic/registry/store.go``.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from common.clock import parse_rfc3339, rfc3339
from controller.api.access import User
from controller.api.admission import Admission, AdmissionRequest
from controller.api.body import decode_object
from controller.api.ports import Ports
from controller.api.request import Request
from controller.api.status import ApiError, bad_request, conflict, invalid, is_not_found, not_found, success
from controller.api.writes import ATTEMPTS_MAX, commit
from controller.kinds.kind import FieldError, Kind, Object
from controller.store.cache import Entry
from controller.store.entry import encode, with_revision
from controller.store.objects import Compare, Conflict, Delete, Put

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
PARALLEL_MAX = 16
RETURNED = frozenset(
    {
        *(("", plural) for plural in ("persistentvolumeclaims", "persistentvolumes", "pods", "podtemplates")),
        *(("", plural) for plural in ("resourcequotas", "serviceaccounts", "services")),
        *(("storage.k8s.io", plural) for plural in ("csidrivers", "csinodes", "storageclasses")),
        *(("storage.k8s.io", plural) for plural in ("volumeattachments", "volumeattributesclasses")),
        *(("resource.k8s.io", plural) for plural in ("deviceclasses", "resourceclaims")),
        *(("resource.k8s.io", plural) for plural in ("resourceclaimtemplates", "resourceslices")),
    }
)
"""Kinds whose deletion answers with the object that went: generated clients decode it as such."""
POLICIES = {"Foreground": FOREGROUND, "Orphan": ORPHAN, "Background": ""}


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """``metav1.DeleteOptions``, checked. ``grace_s`` and ``policy`` None: as the kind likes."""

    grace_s: int | None = None
    uid: str | None = None
    resource_version: str | None = None
    policy: str | None = None
    dry_run: bool = False


async def options_of(request: Request) -> DeleteOptions:
    """From the body, or else the query. Raises ``ApiError`` 400 or 422."""
    body = await request.read()
    given: Object = {}
    if body.strip():
        given, _ = decode_object(body, request.headers.get("Content-Type", ""))
    for name in ("gracePeriodSeconds", "propagationPolicy", "orphanDependents", "dryRun"):
        if name in request.query and name not in given:
            given[name] = list(request.query[name]) if name == "dryRun" else request.text(name)
    return checked_options(given)


def checked_options(given: Object) -> DeleteOptions:
    """``metav1.DeleteOptions`` as decoded. Raises ``ApiError`` 400 or 422."""
    grace = given.get("gracePeriodSeconds")
    try:
        grace_s = None if grace is None else int(grace)
    except (TypeError, ValueError):
        raise bad_request(f"gracePeriodSeconds: {grace!r} is not an integer") from None
    if grace_s is not None and grace_s < 0:
        grace_s = 1
    policy = given.get("propagationPolicy")
    if policy is not None and given.get("orphanDependents") is not None:
        detail = "orphanDependents and deletionPropagation cannot be both set"
        raise invalid(
            "meta.k8s.io", "DeleteOptions", "", [FieldError("FieldValueInvalid", "propagationPolicy", detail, policy)]
        )
    if policy is None and given.get("orphanDependents") is not None:
        policy = "Orphan" if str(given["orphanDependents"]).lower() == "true" else "Background"
    if policy is not None and policy not in POLICIES:
        detail = 'supported values: "Background", "Foreground", "Orphan"'
        error = FieldError("FieldValueNotSupported", "propagationPolicy", detail, policy)
        raise invalid("meta.k8s.io", "DeleteOptions", "", [error])
    preconditions = given.get("preconditions") or {}
    dry_run = given.get("dryRun") or []
    if not isinstance(preconditions, dict) or not isinstance(dry_run, list):
        raise bad_request("preconditions must be an object and dryRun a list")
    if any(value not in ("", "All") for value in dry_run):
        error = FieldError("FieldValueNotSupported", "dryRun", 'supported values: "All"', dry_run)
        raise invalid("meta.k8s.io", "DeleteOptions", "", [error])
    return DeleteOptions(grace_s, preconditions.get("uid"), preconditions.get("resourceVersion"), policy, bool(dry_run))


class Deleter:
    """The delete path over ``Ports``."""

    def __init__(self, ports: Ports, admission: Admission) -> None:
        self._ports = ports
        self._admission = admission

    async def delete(
        self, kind: Kind, namespace: str, name: str, options: DeleteOptions, user: User
    ) -> tuple[bytes, bool]:
        """Delete one. Returns (answer bytes, whether they are a Status): the object while it lingers, or as it was."""
        for _ in range(ATTEMPTS_MAX):
            await self._ports.fresh()
            entry = self._ports.cache.get(kind.store_key, namespace, name)
            if entry is None:
                raise not_found(kind.key, name)
            _check_preconditions(kind, entry, options)
            obj = entry.decode()
            self._admission.admit(AdmissionRequest("DELETE", kind, obj, None, user, "", options.dry_run))
            try:
                return await self._delete_once(kind, entry, obj, options)
            except Conflict:
                continue
        raise conflict(kind.key, name)

    async def delete_all(self, kind: Kind, entries: Sequence[Entry], options: DeleteOptions, user: User) -> None:
        """Delete ``entries``, some at a time; those that are gone already are as good. Raises the first refusal."""

        async def one(entry: Entry) -> ApiError | None:
            try:
                await self.delete(kind, entry.namespace, entry.name, options, user)
            except ApiError as err:
                return None if is_not_found(err) else err
            return None

        for start in range(0, len(entries), PARALLEL_MAX):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(entry)) for entry in entries[start : start + PARALLEL_MAX]]
            refused = next((err for task in tasks if (err := task.result()) is not None), None)
            if refused is not None:
                raise refused

    async def _delete_once(self, kind: Kind, entry: Entry, obj: Object, options: DeleteOptions) -> tuple[bytes, bool]:
        lingering = mark(kind, obj, options, self._ports.clock.now())
        compare = [Compare(entry.key, entry.revision)]
        if lingering is None:
            if not options.dry_run:
                await commit(self._ports, compare, [Delete(entry.key)])
            if (kind.group, kind.plural) in RETURNED:
                return entry.body, False
            details: Object = {"name": entry.name, "kind": kind.plural, "uid": entry.uid}
            if kind.group:
                details["group"] = kind.group
            return orjson.dumps(success(details)), True
        stored = encode(lingering)
        if options.dry_run or with_revision(stored, entry.revision) == entry.body:
            return with_revision(stored, entry.revision), False
        return with_revision(stored, await commit(self._ports, compare, [Put(entry.key, stored)])), False


def _check_preconditions(kind: Kind, entry: Entry, options: DeleteOptions) -> None:
    if options.uid is not None and options.uid != entry.uid:
        why = f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {entry.uid}"
        raise conflict(kind.key, entry.name, why)
    if options.resource_version is not None and options.resource_version != str(entry.revision):
        why = (
            f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, "
            f"ResourceVersion in object meta: {entry.revision}"
        )
        raise conflict(kind.key, entry.name, why)


def grace_s(kind: Kind, obj: Object, options: DeleteOptions) -> int:
    """Seconds until it may be removed. A pod that runs nowhere needs none."""
    wanted = kind.grace_s(obj)
    if wanted == 0:
        return 0
    if options.grace_s is not None:
        wanted = options.grace_s
    if kind.plural == "pods" and not kind.group:
        finished = obj.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if finished or not obj.get("spec", {}).get("nodeName"):
            return 0
    return wanted


def mark(kind: Kind, obj: Object, options: DeleteOptions, now: float) -> Object | None:
    """The object as it lingers after a delete request, or None when it goes at once. Changes ``obj``. Pure."""
    metadata = obj["metadata"]
    finalizers = _finalizers(metadata.get("finalizers") or [], options.policy)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)
    period_s = grace_s(kind, obj, options)
    held = bool(finalizers) or bool(obj.get("spec", {}).get("finalizers") if kind.plural == "namespaces" else ())
    if not held and period_s == 0:
        return None
    if "deletionTimestamp" in metadata:
        left_s = metadata.get("deletionGracePeriodSeconds") or 0
        if period_s < left_s:
            started = parse_rfc3339(metadata["deletionTimestamp"]) - left_s
            metadata["deletionTimestamp"] = rfc3339(max(started + period_s, now) if period_s else now)
            metadata["deletionGracePeriodSeconds"] = period_s
        elif left_s == 0 and not held:
            return None
        return obj
    metadata["deletionTimestamp"] = rfc3339(now + period_s)
    metadata["deletionGracePeriodSeconds"] = period_s
    if kind.generation_fields:
        metadata["generation"] = int(metadata.get("generation", 0)) + 1
    if kind.plural == "namespaces" and not kind.group:
        obj.setdefault("status", {})["phase"] = "Terminating"
        metadata.pop("deletionGracePeriodSeconds")
    return obj


def _finalizers(present: list[str], policy: str | None) -> list[str]:
    if policy is None:
        return present
    wanted = POLICIES[policy]
    kept = [item for item in present if item not in (FOREGROUND, ORPHAN) or item == wanted]
    return [*kept, wanted] if wanted and wanted not in kept else kept

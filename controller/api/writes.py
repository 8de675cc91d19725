"""create and update: schema, defaults, metadata, admission, validation, one compare-and-swap.

The order of a write is the one that ``kinds.kind.Kind`` documents. Nothing here knows HTTP: requests and reconcilers
(``local.LocalClient``) come the same way.
"""

import random
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.clock import rfc3339
from controller.api import body as bodies
from controller.api import managed, metadata
from controller.api.access import User
from controller.api.admission import Admission, AdmissionRequest, NotYet, undo
from controller.api.ports import Ports
from controller.api.status import ApiError, already_exists, bad_request, conflict, invalid, not_found, unavailable
from controller.kinds.kind import Kind, Object
from controller.store.cache import Entry
from controller.store.entry import encode, key_for, with_revision
from controller.store.etcd import Unavailable
from controller.store.objects import Compare, Conflict, Delete, Put

ATTEMPTS_MAX = 8
NOT_YET_S = 0.1
"""Between attempts to create what waits for a controller; upstream waits as long."""
_METADATA_OF_MAIN = ("finalizers", "ownerReferences")
Transform = Callable[[Object], Object]


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How to write. ``manager`` owns the fields (``managedFields``); ``strict`` is fieldValidation."""

    user: User
    manager: str = "unknown"
    dry_run: bool = False
    strict: str = "Ignore"
    apply: bool = False
    """Server-side apply: the transform has already set managedFields."""
    warnings: list[str] | None = None
    """Receives what admission warns the client of."""


class Writer:
    """The write path over ``Ports``."""

    def __init__(self, ports: Ports, admission: Admission) -> None:
        self._ports = ports
        self._admission = admission

    def decode(self, kind: Kind, obj: Object, duplicates: Sequence[str], strict: str) -> list[str]:
        """Check a user's object against the schema, and normalize it in place. Returns warnings.

        Raises ``ApiError`` 400 for another kind, wrong types, and in Strict mode for unknown fields.
        """
        check_kind(kind, obj)
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        if not isinstance(obj.get("metadata", {}), dict):
            raise bodies.decoding_error(
                kind.kind, kind.version, ["json: cannot unmarshal into Go struct field .metadata"]
            )
        unknown, errors = self._ports.structure(kind).check(obj)
        if errors:
            raise bodies.decoding_error(kind.kind, kind.version, errors)
        about = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
        warnings = bodies.judge_fields(unknown, list(duplicates), strict, about)
        given = obj.get("metadata")
        if isinstance(given, dict) and given.get("managedFields") == []:
            # An order to forget all owners, which normalizing would take for nothing said.
            given["managedFields"] = [{}]
        self._ports.structure(kind).normalize(obj)
        if not isinstance(obj.get("metadata"), dict):
            obj["metadata"] = {}
        return warnings

    async def create(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions) -> bytes:
        """Store a new, already decoded object; returns its bytes. Raises ``ApiError``."""
        given = obj["metadata"]
        if given.get("namespace") and kind.namespaced and given["namespace"] != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        if given.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        generated = not given.get("name") and bool(given.get("generateName"))
        for attempt in range(ATTEMPTS_MAX):
            try:
                return await self._create_once(kind, namespace, obj, options)
            except NotYet:
                if attempt + 1 == ATTEMPTS_MAX:
                    raise
                await self._ports.clock.sleep(NOT_YET_S)
            except ApiError as err:
                if not generated or err.reason != "AlreadyExists" or attempt + 1 == ATTEMPTS_MAX:
                    raise
                obj["metadata"].pop("name")
        raise AssertionError("unreachable")

    async def _create_once(self, kind: Kind, namespace: str, obj: Object, options: WriteOptions) -> bytes:
        now = rfc3339(self._ports.clock.now())
        metadata.prepare_create(kind, obj, namespace, uid=str(uuid.uuid4()), now=now, suffix=_suffix)
        # Nodes register together with their status; of all others it is the controllers' to write.
        if "status" in kind.subresources and kind.plural != "nodes":
            obj.pop("status", None)
        if not options.apply:
            obj["metadata"].pop("managedFields", None)
        await self._ports.fresh()
        kind.default(obj)
        request = AdmissionRequest("CREATE", kind, obj, None, options.user, "", options.dry_run)
        self._admission.admit(request)
        kind.prepare_create(obj)
        errors = metadata.validate(kind, obj) + kind.validate(obj) + kind.validate_create(obj)
        name = obj["metadata"].get("name", "")
        if errors:
            raise invalid(kind.group, kind.kind, name, errors)
        self._judge(request, options)
        if not options.apply:
            managed.track(self._ports.structure(kind).shape, None, obj, options.manager, "", now)
        key = key_for(kind.store_key, obj["metadata"].get("namespace", ""), name)
        stored = _stored(kind, obj)
        if options.dry_run:
            if self._ports.cache.get(kind.store_key, obj["metadata"].get("namespace", ""), name):
                raise already_exists(kind.key, name)
            return stored
        try:
            return with_revision(stored, await self._txn([Compare(key, 0)], [Put(key, stored)]))
        except Conflict:
            undo(request)
            raise already_exists(kind.key, name) from None

    async def update(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        change: Transform,
        options: WriteOptions,
        subresource: str = "",
        uid: str | None = None,
    ) -> bytes:
        """Replace an object by ``change`` of what is stored; ``change`` may run again when somebody was faster.

        A resourceVersion in its result is a precondition. Returns the new bytes. Raises ``ApiError``.
        """
        for _ in range(ATTEMPTS_MAX):
            await self._ports.fresh()
            entry = self._ports.cache.get(kind.store_key, namespace, name)
            if entry is None:
                raise not_found(kind.key, name)
            _check_uid(kind, entry, uid)
            old, new = served(kind, entry), change(served(kind, entry))
            _check_uid(kind, entry, new.setdefault("metadata", {}).get("uid"))
            wanted = new["metadata"].get("resourceVersion")
            if wanted and wanted != "0" and wanted != str(entry.revision):
                raise conflict(kind.key, name)
            self._prepare(kind, new, old, subresource, options)
            if metadata.same(new, old):
                return entry.body
            try:
                return await self._replace(kind, entry, new, options)
            except Conflict as err:
                if wanted and wanted != "0":
                    raise (conflict(kind.key, name) if err.revision else not_found(kind.key, name)) from None
        raise conflict(kind.key, name)

    def _prepare(self, kind: Kind, new: Object, old: Object, subresource: str, options: WriteOptions) -> None:
        """Bring ``new`` to what may be stored over ``old``, in place. Raises ``ApiError``."""
        _merge_parts(kind, new, old, subresource)
        name = old["metadata"]["name"]
        errors = metadata.prepare_update(kind, new, old)
        if errors:
            raise invalid(kind.group, kind.kind, name, errors)
        kind.default(new)
        rule = kind.subwrites.get(subresource)
        if rule is not None:
            rule.confine(new, old)
        elif subresource == "":
            kind.prepare_update(new, old)
        request = AdmissionRequest("UPDATE", kind, new, old, options.user, subresource, options.dry_run)
        self._admission.admit(request)
        errors = metadata.validate(kind, new)
        if rule is not None:
            errors += kind.validate(new) + rule.validate(new, old)
        elif subresource in ("", "scale"):
            errors += kind.validate(new) + kind.validate_update(new, old)
        if errors:
            raise invalid(kind.group, kind.kind, name, errors)
        self._judge(request, options)
        metadata.bump_generation(kind, new, old)
        if not options.apply:
            now = rfc3339(self._ports.clock.now())
            managed.track(self._ports.structure(kind).shape, old, new, options.manager, subresource, now)

    def _judge(self, request: AdmissionRequest, options: WriteOptions) -> None:
        self._admission.judge(request)
        if options.warnings is not None:
            options.warnings.extend(text for text in request.warnings if text not in options.warnings)

    async def _replace(self, kind: Kind, entry: Entry, new: Object, options: WriteOptions) -> bytes:
        stored = _stored(kind, new)
        if options.dry_run:
            return with_revision(stored, entry.revision)
        meta = new["metadata"]
        held = meta.get("finalizers") or meta.get("deletionGracePeriodSeconds")
        if entry.resource.plural == "namespaces":
            held = held or (new.get("spec") or {}).get("finalizers")
        # The last finalizer of an object that waits only for finalizers is gone: so is the object.
        if meta.get("deletionTimestamp") and not held:
            revision = await self._txn([Compare(entry.key, entry.revision)], [Delete(entry.key)])
            return with_revision(stored, revision)
        revision = await self._txn([Compare(entry.key, entry.revision)], [Put(entry.key, stored)])
        return with_revision(stored, revision)

    async def _txn(self, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> int:
        return await commit(self._ports, compares, writes)


def check_kind(kind: Kind, obj: Object) -> None:
    """Refuse (``ApiError`` 400) an object that says to be of another kind or version."""
    version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({version}) does not match the expected API version ({kind.api_version})"
        )
    if name != kind.kind:
        raise bad_request(f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}')


async def commit(ports: Ports, compares: Sequence[Compare], writes: Sequence[Put | Delete]) -> int:
    """``Store.txn`` with etcd's absence as ``ApiError`` 503. Raises ``Conflict``."""
    try:
        return await ports.store.txn(compares, writes)
    except Unavailable as err:
        raise unavailable(f"the write may or may not have happened: {err}") from err


def served(kind: Kind, entry: Entry) -> Object:
    """A stored object as ``kind``, which may be another version of it than the one that is stored."""
    obj = entry.decode()
    if kind.stored is not None and kind.stored.read is not None:
        kind.stored.read(obj)
    obj["apiVersion"] = kind.api_version
    return obj


def _stored(kind: Kind, obj: Object) -> bytes:
    if kind.stored is None:
        return encode(obj)
    made = {**obj, "apiVersion": kind.stored.api_version}
    if kind.stored.write is not None:
        kind.stored.write(made)
    return encode(made)


def _check_uid(kind: Kind, entry: Entry, uid: str | None) -> None:
    """A uid that the writer knows is a precondition: it means that object, not a namesake that came later."""
    if uid and uid != entry.uid:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {entry.uid}"
        raise conflict(kind.key, entry.name, why)


def _suffix() -> str:
    return "".join(random.choices(metadata.NAME_ALPHABET, k=metadata.SUFFIX_LENGTH))


def _merge_parts(kind: Kind, new: Object, old: Object, subresource: str) -> None:
    """Keep of ``new`` only what this path may change; the rest is ``old``'s."""
    new["apiVersion"], new["kind"] = kind.api_version, kind.kind
    if subresource == "":
        if "status" in kind.subresources:
            _carry(new, old, "status")
        if kind.plural == "namespaces" and not kind.group:
            new.setdefault("spec", {})["finalizers"] = (old.get("spec") or {}).get("finalizers") or []
        return
    taken = {"status": ("status",), "approval": ("status",), "finalize": ("spec",)}.get(subresource, ("spec",))
    for field in [*new, *old]:
        if field not in ("metadata", *taken):
            _carry(new, old, field)
    for field in _METADATA_OF_MAIN:
        if subresource == "status":
            _carry(new["metadata"], old["metadata"], field)


def _carry(new: Object, old: Object, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)

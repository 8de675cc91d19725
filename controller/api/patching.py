"""patch: the four patch types over the ordinary update path."""

import copy
from typing import TYPE_CHECKING

import orjson

from common.clock import rfc3339
from controller.api import body as bodies
from controller.api import managed
from controller.api.patch import APPLY, JSON, MERGE, STRATEGIC, apply_patch, decode_patch
from controller.api.ports import Ports
from controller.api.request import Request
from controller.api.status import ApiError, bad_request, conflict, invalid, is_not_found, unsupported_media
from controller.api.writes import WriteOptions, Writer, check_kind
from controller.kinds.kind import FieldError, Kind, Object

if TYPE_CHECKING:
    from controller.api.api import Api


class Patcher:
    """Applies request bodies as patches."""

    def __init__(self, ports: Ports, writer: Writer) -> None:
        self._ports = ports
        self._writer = writer

    async def patch(self, api: "Api", request: Request, kind: Kind) -> tuple[bytes, bool]:
        """Returns (new bytes, whether it was created). Raises ``ApiError``."""
        target = request.target
        media = bodies.media_type(request.headers.get("Content-Type", ""))
        raw = await request.read()
        namespace = target.namespace if kind.namespaced else ""
        if media == APPLY:
            options = api.write_options(request, apply=True)
            if not request.text("fieldManager"):
                raise _refused("FieldValueRequired", "fieldManager", "is required for apply patch")
            return await self.apply(
                kind,
                namespace,
                target.name,
                raw,
                options,
                target.subresource,
                request.warnings,
                force=request.flag("force"),
            )
        if request.flag("force"):
            raise _refused("FieldValueForbidden", "force", "may not be specified for non-apply patch")
        options = api.write_options(request)
        made = await self.change(
            kind, namespace, target.name, raw, media, options, target.subresource, request.warnings
        )
        return made, False

    async def change(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        raw: bytes,
        media: str,
        options: WriteOptions,
        subresource: str,
        warnings: list[str],
    ) -> bytes:
        """JSON, merge and strategic merge patches."""
        if media == STRATEGIC and kind.structure is not None:
            raise unsupported_media(
                "the body of the request was in an unknown format - accepted media types include: "
                f"{JSON}, {MERGE}, {APPLY}"
            )
        patch = decode_patch(raw, media)
        shape = self._ports.structure(kind).shape

        def transform(old: Object) -> Object:
            version = old["metadata"]["resourceVersion"]
            given = patch.get("metadata", {}).get("resourceVersion") if isinstance(patch, dict) else None
            new = apply_patch(old, patch, media, shape)
            warnings[:] = [*dict.fromkeys([*warnings, *self._writer.decode(kind, new, (), options.strict)])]
            # Without a version of its own a patch is good for any version; the writer retries it.
            if given is None and new["metadata"].get("resourceVersion") == version:
                new["metadata"].pop("resourceVersion")
            return new

        return await self._writer.update(kind, namespace, name, transform, options, subresource)

    async def apply(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        raw: bytes,
        options: WriteOptions,
        subresource: str,
        warnings: list[str],
        *,
        force: bool,
    ) -> tuple[bytes, bool]:
        """Server-side apply; creates what is missing."""
        applied, duplicates = bodies.decode_yaml(raw)
        if not isinstance(applied, dict):
            raise bad_request("error decoding YAML: an apply configuration must be an object")
        if not applied.get("apiVersion") or not applied.get("kind"):
            raise bad_request("error decoding patch: apiVersion and kind must be set")
        check_kind(kind, applied)
        if (applied.get("metadata") or {}).get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        unknown, errors = self._ports.structure(kind).check(applied)
        if errors:
            raise bodies.decoding_error(kind.kind, kind.version, errors)
        if unknown:
            raise _undeclared(kind, namespace, name, unknown)
        warnings += bodies.judge_fields([], duplicates, options.strict)
        self._ports.structure(kind).normalize(applied)
        applied.setdefault("metadata", {}).setdefault("name", name)
        if applied["metadata"]["name"] != name:
            raise bad_request(
                f"the name of the object ({applied['metadata']['name']}) does not match the name on the URL ({name})"
            )
        shape = self._ports.structure(kind).shape
        now = rfc3339(self._ports.clock.now())

        def transform(old: Object) -> Object:
            config = copy.deepcopy(applied)
            new = managed.apply(shape, old, config, options.manager, subresource, now, force=force, kind=kind)
            if not (applied["metadata"].get("resourceVersion")):
                new["metadata"].pop("resourceVersion", None)
            return new

        try:
            return await self._writer.update(kind, namespace, name, transform, options, subresource), False
        except Exception as err:
            if not is_not_found(err) or subresource or self._ports.cache.get(kind.store_key, namespace, name):
                raise
        if uid := applied["metadata"].get("uid"):
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise conflict(kind.key, name, why)
        empty: Object = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {}}
        fresh = managed.apply(
            shape, empty, orjson.loads(orjson.dumps(applied)), options.manager, "", now, force=force, kind=kind
        )
        return await self._writer.create(kind, namespace, fresh, options), True


def _undeclared(kind: Kind, namespace: str, name: str, unknown: list[str]) -> ApiError:
    """Nobody can own a field that is not there: applying one is refused whatever the validation mode."""
    what = f"{namespace}/{name}; {kind.api_version}, Kind={kind.kind}"
    listed = "\n".join(f".{path}: field not declared in schema" for path in unknown)
    return bad_request(f"failed to create typed patch object ({what}): {listed}")


def _refused(error: str, path: str, detail: str) -> ApiError:
    return invalid("meta.k8s.io", "PatchOptions", "", [FieldError(error, path, detail)])

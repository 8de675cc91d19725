"""get and list: answered from memory, as bytes; objects are decoded only to render tables."""

import orjson
import yaml

from controller.api import table
from controller.api.negotiate import Accepted, negotiate
from controller.api.ports import Ports
from controller.api.request import Reply, Request
from controller.api.selection import (
    ANY_REVISION,
    ListOptions,
    encode_continue,
    list_options,
    parse_revision,
    selection_of,
)
from controller.api.status import expired, expired_page, not_found
from controller.api.writes import served
from controller.kinds.kind import Kind, Object
from controller.store.cache import Entry, Expired
from controller.store.entry import as_version


async def get(ports: Ports, request: Request, kind: Kind) -> Reply:
    """One object."""
    accepted = negotiate(request.headers.get("Accept", ""))
    revision = parse_revision(request.text("resourceVersion"))
    if revision is None:
        await ports.fresh()
    elif revision:
        await ports.at_least(revision)
    entry = ports.cache.get(kind.store_key, request.target.namespace if kind.namespaced else "", request.target.name)
    if entry is None:
        raise not_found(kind.key, request.target.name)
    return represent(ports, request, kind, entry.body, accepted)


def represent(
    ports: Ports, request: Request, kind: Kind, body: bytes, accepted: Accepted | None = None, status: int = 200
) -> Reply:
    """One object's bytes in the form the client asked for."""
    accepted = accepted or negotiate(request.headers.get("Accept", ""))
    body = body_of(kind, body)
    if accepted.form == "object":
        return encoded(body, accepted, status)
    obj: Object = orjson.loads(body)
    if accepted.form == "table":
        include = request.text("includeObject", "Metadata")
        rows = [table.row(kind, obj, ports.clock.now(), include)]
        made = table.table(kind, rows, {"resourceVersion": obj["metadata"].get("resourceVersion", "")})
        return encoded(orjson.dumps(made), accepted, status)
    return encoded(orjson.dumps(table.partial(obj)), accepted, status)


def body_of(kind: Kind, body: bytes) -> bytes:
    """Stored bytes as ``kind``, which may be another version of them."""
    if kind.stored is None:
        return body
    if kind.stored.read is None:
        return as_version(body, kind.api_version)
    obj: Object = orjson.loads(body)
    kind.stored.read(obj)
    return orjson.dumps({**obj, "apiVersion": kind.api_version})


def encoded(body: bytes, accepted: Accepted, status: int = 200) -> Reply:
    """JSON bytes as the accepted encoding."""
    if accepted.encoding == "yaml":
        text: str = yaml.safe_dump(orjson.loads(body), sort_keys=False)
        return Reply(status, text.encode(), "application/yaml")
    return Reply(status, body)


async def list_objects(ports: Ports, request: Request, kind: Kind) -> Reply:
    """All objects of a resource, or of a namespace of it, that the selectors choose; in pages when limited."""
    accepted = negotiate(request.headers.get("Accept", ""))
    options = list_options(request)
    selection = selection_of(request, kind)
    entries, revision = await _entries(ports, request, kind, options)
    if not selection.is_everything:
        entries = [entry for entry in entries if selection.matches(entry)]
    if options.continue_key:
        entries = [entry for entry in entries if entry.key > options.continue_key]
    metadata: Object = {"resourceVersion": str(revision)}
    if options.limit and len(entries) > options.limit:
        rest = len(entries) - options.limit
        entries = entries[: options.limit]
        metadata["continue"] = encode_continue(entries[-1].key, revision)
        if selection.is_everything:
            metadata["remainingItemCount"] = rest
    if accepted.form == "table":
        return _table(ports, request, kind, entries, metadata, accepted)
    if accepted.form in ("metadata", "metadata-list"):
        return encoded(table.partial_list((entry.decode() for entry in entries), metadata), accepted)
    pieces = join_list(kind, entries, metadata)
    return Reply(200, pieces) if accepted.encoding == "json" else encoded(b"".join(pieces), accepted)


async def _entries(ports: Ports, request: Request, kind: Kind, options: ListOptions) -> tuple[list[Entry], int]:
    namespace = request.target.namespace if kind.namespaced and request.target.namespace else None
    # A limit without a match asks for just that version too.
    exact = options.match == "Exact" or (options.limit and not options.match)
    revision = options.continue_revision or (options.revision if exact else None)
    if revision and revision != ANY_REVISION:
        await ports.at_least(revision)
        try:
            return ports.cache.list_at(kind.store_key, namespace, revision), revision
        except Expired:
            if options.continue_revision:
                raise expired_page(encode_continue(options.continue_key, ANY_REVISION)) from None
            raise expired(f"The resourceVersion for the provided list is too old: {revision}") from None
    if options.revision is None:
        await ports.fresh()
    else:
        await ports.at_least(options.revision)
    return ports.cache.list(kind.store_key, namespace), ports.cache.revision


def join_list(kind: Kind, entries: list[Entry], metadata: Object) -> list[bytes]:
    """A list's JSON in pieces that share the objects' bytes."""
    head = {"kind": kind.kind_of_list, "apiVersion": kind.api_version, "metadata": metadata}
    pieces = [orjson.dumps(head)[:-1] + b',"items":[']
    for index, entry in enumerate(entries):
        if index:
            pieces.append(b",")
        pieces.append(body_of(kind, entry.body))
    pieces.append(b"]}\n")
    return pieces


def _table(
    ports: Ports, request: Request, kind: Kind, entries: list[Entry], metadata: Object, accepted: Accepted
) -> Reply:
    include, now = request.text("includeObject", "Metadata"), ports.clock.now()
    rows = (table.row(kind, served(kind, entry), now, include) for entry in entries)
    return encoded(orjson.dumps(table.table(kind, rows, metadata)), accepted)

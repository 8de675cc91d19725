"""Stored objects as bytes, and the few fields an index needs. Pure.

Law: the bytes of every stored object start with ``apiVersion``, ``kind``, ``metadata``, in this order, so that the
resourceVersion (etcd's revision, which the stored bytes lack) can be spliced in without decoding.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from controller.kinds.kind import Object, ResourceKey

PREFIX = "/sphere/registry/"
_METADATA = b'"metadata":{'
_VERSION = re.compile(rb'"metadata":\{"resourceVersion":"\d+",')
_API_VERSION = re.compile(rb'\{"apiVersion":"[^"]*"')
_NONE: Mapping[str, str] = {}

FieldsOf = Callable[[ResourceKey, Object], Mapping[str, str]]
"""Field selector values of an object, beyond name and namespace."""
Complete = Callable[[Object], bool]
"""Brings a stored object to what is served today, in place; whether anything changed."""
_WHOLE: Mapping[ResourceKey, Complete] = {}


def key_for(resource: ResourceKey, namespace: str, name: str) -> str:
    """etcd key of an object; ``namespace`` is empty for cluster-scoped ones."""
    return f"{PREFIX}{resource.group or 'core'}/{resource.plural}/{namespace or '-'}/{name}"


def parse_key(key: str) -> tuple[ResourceKey, str, str]:
    """Inverse of ``key_for``. Raises ``ValueError`` for a foreign key."""
    group, plural, namespace, name = key.removeprefix(PREFIX).split("/")
    return ResourceKey("" if group == "core" else group, plural), "" if namespace == "-" else namespace, name


def encode(obj: Object) -> bytes:
    """Bytes to store: compact JSON in the order the law above asks for, without ``metadata.resourceVersion``."""
    metadata = {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}
    head = {"apiVersion": obj.get("apiVersion", ""), "kind": obj.get("kind", ""), "metadata": metadata}
    head.update((k, v) for k, v in obj.items() if k not in head)
    return orjson.dumps(head)


def with_revision(stored: bytes, revision: int) -> bytes:
    """Stored bytes with ``revision`` spliced in as ``metadata.resourceVersion``."""
    at = stored.index(_METADATA) + len(_METADATA)
    return b'%b"resourceVersion":"%d",%b' % (stored[:at], revision, stored[at:])


def at_revision(body: bytes, revision: int) -> bytes:
    """Bytes of an entry with its resourceVersion replaced."""
    return _VERSION.sub(b'"metadata":{"resourceVersion":"%d",' % revision, body, count=1)


def without_revision(body: bytes) -> bytes:
    """Inverse of ``with_revision``."""
    return _VERSION.sub(_METADATA, body, count=1)


def as_version(body: bytes, api_version: str) -> bytes:
    """An entry's bytes under another apiVersion of the same fields."""
    return _API_VERSION.sub(b'{"apiVersion":"%b"' % api_version.encode(), body, count=1)


@dataclass(frozen=True, slots=True)
class Entry:
    """One version of an object. ``body`` is served as it is: JSON bytes including ``metadata.resourceVersion``."""

    resource: ResourceKey
    key: str
    namespace: str
    name: str
    uid: str
    revision: int
    labels: Mapping[str, str]
    fields: Mapping[str, str]
    owners: tuple[str, ...]
    deleting: bool
    body: bytes
    incomplete: bytes | None = None
    """What is stored, where it was completed for ``body``: other defaults may hold tomorrow."""

    @property
    def stored(self) -> bytes:
        """The bytes as they are in etcd."""
        return without_revision(self.body) if self.incomplete is None else self.incomplete

    def decode(self) -> Object:
        """A fresh dict, ``metadata.resourceVersion`` included."""
        obj: Object = orjson.loads(self.body)
        return obj

    def deleted_at(self, revision: int) -> "Entry":
        """The last state as it is reported by a DELETED event of ``revision``."""
        return Entry(
            resource=self.resource,
            key=self.key,
            namespace=self.namespace,
            name=self.name,
            uid=self.uid,
            revision=revision,
            labels=self.labels,
            fields=self.fields,
            owners=self.owners,
            deleting=self.deleting,
            body=at_revision(self.body, revision),
        )


def make_entry(
    key: str, stored: bytes, revision: int, fields_of: FieldsOf, completions: Mapping[ResourceKey, Complete] = _WHOLE
) -> Entry:
    """Index one stored value. Raises ``ValueError`` for a key or value that is not ours."""
    resource, namespace, name = parse_key(key)
    obj: dict[str, Any] = orjson.loads(stored)
    complete = completions.get(resource)
    incomplete = None
    if complete is not None and complete(obj):
        incomplete, stored = stored, encode(obj)
    metadata = obj["metadata"]
    owners = metadata.get("ownerReferences")
    return Entry(
        resource=resource,
        key=key,
        namespace=namespace,
        name=name,
        uid=metadata.get("uid", ""),
        revision=revision,
        labels=metadata.get("labels") or _NONE,
        fields=fields_of(resource, obj) or _NONE,
        owners=tuple(owner["uid"] for owner in owners) if owners else (),
        deleting="deletionTimestamp" in metadata,
        body=with_revision(stored, revision),
        incomplete=incomplete,
    )

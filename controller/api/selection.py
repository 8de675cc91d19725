"""List and watch options: selectors, resource versions, limits and continue tokens. Pure.

Spec: apimachinery ``metainternalversion/validation``, ``storage/continue.go`` (the token's content is ours).
"""

import base64
import binascii
from dataclasses import dataclass, replace

import orjson

from common.selectors import (
    EVERYTHING,
    FieldSelector,
    InvalidSelector,
    LabelSelector,
    parse_field_selector,
    parse_label_selector,
)
from controller.api.request import Request
from controller.api.status import ApiError, bad_request, invalid
from controller.kinds.kind import FieldError, Kind
from controller.store.entry import Entry


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects. Built by ``selection_of``."""

    labels: LabelSelector
    fields: FieldSelector

    @property
    def is_everything(self) -> bool:
        return self.labels.is_empty and not self.fields.terms

    def matches(self, entry: Entry) -> bool:
        """Judge from the index alone, without decoding."""
        if not self.labels.is_empty and not self.labels.matches(entry.labels):
            return False
        for term in self.fields.terms:
            if term.path == "metadata.name":
                have = entry.name
            elif term.path == "metadata.namespace":
                have = entry.namespace
            else:
                have = entry.fields.get(term.path, "")
            if (have == term.value) is term.negative:
                return False
        return True


ALL = Selection(EVERYTHING, FieldSelector())


def selection_of(request: Request, kind: Kind) -> Selection:
    """Selectors of a request; a request for one name watches just that. Raises ``ApiError`` 400."""
    try:
        labels = parse_label_selector(request.text("labelSelector"))
        fields = parse_field_selector(request.text("fieldSelector"))
    except InvalidSelector as err:
        raise bad_request(str(err)) from err
    for path in fields.paths:
        known = path == "metadata.name" or (path == "metadata.namespace" and kind.namespaced)
        if not known and path not in kind.selectable_fields:
            raise bad_request(f"field label not supported: {path}")
    if kind.stored is not None and kind.stored.fields:
        names = kind.stored.fields
        fields = FieldSelector(tuple(replace(each, path=names.get(each.path, each.path)) for each in fields.terms))
    if request.target.name:
        only = parse_field_selector(f"metadata.name={request.target.name}")
        wanted = fields.required("metadata.name")
        if wanted is not None and wanted != request.target.name:
            raise bad_request(f"fieldSelector metadata.name={wanted} does not fit the name {request.target.name}")
        fields = FieldSelector((*fields.terms, *only.terms))
    return Selection(labels, fields)


ANY_REVISION = -1


@dataclass(frozen=True, slots=True)
class ListOptions:
    """Validated options. ``revision`` None: not given. ``match``: '', Exact or NotOlderThan.

    ``continue_revision`` 0: no token was given; ``ANY_REVISION``: go on in whatever is there now.
    """

    revision: int | None
    match: str
    limit: int
    continue_key: str
    continue_revision: int


def parse_revision(text: str) -> int | None:
    """A resourceVersion parameter; None when empty. Raises ``ApiError`` 400."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit():
        raise bad_request(f'invalid resource version "{text}": strconv.ParseUint: parsing "{text}": invalid syntax')
    return int(text)


def _invalid_options(kind: str, path: str, error: str, detail: str, value: str = "") -> ApiError:
    return invalid("meta.k8s.io", kind, "", [FieldError(error, path, detail, value)])


def list_options(request: Request) -> ListOptions:
    """Options of a list. Raises ``ApiError`` 400 or 422."""
    version, match = request.text("resourceVersion"), request.text("resourceVersionMatch")
    token = request.text("continue")
    if match:
        if token:
            detail = "resourceVersionMatch is forbidden when continue is provided"
            raise _invalid_options("ListOptions", "resourceVersionMatch", "FieldValueForbidden", detail)
        if not version:
            detail = "resourceVersionMatch is forbidden unless resourceVersion is provided"
            raise _invalid_options("ListOptions", "resourceVersionMatch", "FieldValueForbidden", detail)
        if match not in ("Exact", "NotOlderThan"):
            detail = 'supported values: "Exact", "NotOlderThan", ""'
            raise _invalid_options("ListOptions", "resourceVersionMatch", "FieldValueNotSupported", detail, match)
        if match == "Exact" and version == "0":
            detail = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            raise _invalid_options("ListOptions", "resourceVersionMatch", "FieldValueForbidden", detail)
    revision = parse_revision(version)
    limit = 0
    if text := request.text("limit"):
        try:
            limit = int(text)
        except ValueError:
            raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not token:
        return ListOptions(revision, match, max(0, limit), "", 0)
    if revision:
        raise bad_request("specifying resource version is not allowed when using continue")
    key, at = decode_continue(token)
    return ListOptions(None, "", max(0, limit), key, at)


def encode_continue(last_key: str, revision: int) -> str:
    """Token from which the next page starts: after ``last_key``, as of ``revision``."""
    return base64.urlsafe_b64encode(orjson.dumps({"v": 1, "rv": revision, "after": last_key})).decode().rstrip("=")


def decode_continue(token: str) -> tuple[str, int]:
    """(last key, revision). Raises ``ApiError`` 400 for what is not a token of ours."""
    try:
        data = orjson.loads(base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4)))
        key, revision = data["after"], data["rv"]
        if not isinstance(key, str) or not isinstance(revision, int) or revision < ANY_REVISION or data["v"] != 1:
            raise ValueError(token)
    except (ValueError, KeyError, TypeError, binascii.Error) as err:
        raise bad_request("continue key is not valid: it was not issued by this server") from err
    return key, revision

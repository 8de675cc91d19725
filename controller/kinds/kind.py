"""What the API knows about a kind. Pure data and functions; every kind's file builds one ``Kind``.

Objects are plain JSON dicts (``Object``): nothing a user wrote may be lost, so they are never squeezed into classes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from controller.kinds.schemas import Structure

Object = dict[str, Any]
"""A Kubernetes object as decoded JSON."""


class ResourceKey(NamedTuple):
    """Group and plural: what RBAC, storage and watches are keyed by. ``group`` is empty for core."""

    group: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural


@dataclass(frozen=True, slots=True)
class FieldError:
    """One validation failure in the API's own words (apimachinery ``field.Error``).

    ``type`` is one of ``FieldValueRequired``, ``FieldValueInvalid``, ``FieldValueNotSupported``,
    ``FieldValueForbidden``, ``FieldValueDuplicate``, ``FieldValueTooLong``, ``FieldValueTypeInvalid``.
    """

    type: str
    path: str
    detail: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column (``metav1.TableColumnDefinition``) and how to fill it. ``cell`` takes (object, now)."""

    name: str
    type: str
    cell: Callable[[Object, float], Any]
    priority: int = 0
    format: str = ""
    description: str = ""


def _no_change(obj: Object) -> None:
    """Default for hooks that have nothing to do."""


def _no_change_on_update(obj: Object, old: Object) -> None:
    """Default for update hooks that have nothing to do."""


def _no_errors(obj: Object) -> list[FieldError]:
    return []


def _no_update_errors(obj: Object, old: Object) -> list[FieldError]:
    return []


VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
"""Of what is stored."""


class Subwrite(NamedTuple):
    """What a subresource that writes the spec may do: ``confine`` (new, old) takes back all else, in place."""

    confine: Callable[[Object, Object], None]
    validate: Callable[[Object, Object], list[FieldError]]


class Stored(NamedTuple):
    """Another kind whose stored objects this kind shows: ``read`` brings one to this kind's fields, ``write`` back, in
    place; the generic layer changes apiVersion. ``fields`` maps field selectors of this kind to the other's."""

    key: ResourceKey
    api_version: str
    read: Callable[[Object], None] | None = None
    write: Callable[[Object], None] | None = None
    fields: Mapping[str, str] = MappingProxyType({})


class ScalePaths(NamedTuple):
    """JSON paths that the scale subresource goes by; ``selector`` names a serialized selector, or is empty."""

    replicas: str
    observed: str
    selector: str


@dataclass(frozen=True, slots=True)
class Kind:
    """A served kind. Hooks mutate or judge the new object in place; ``old`` is never mutated.

    Order of a write: schema check -> ``default`` -> admission -> ``prepare_create`` (an update: ``prepare_update`` ->
    admission) -> ``validate`` (and ``validate_update``) -> admission's judges -> store. A status write keeps everything
    but ``status`` from the stored object, a main write keeps ``status`` from it when the kind has a status subresource
    (the generic layer does both).
    ``metadata.generation`` is bumped by the generic layer when ``generation_fields`` change.
    """

    group: str
    version: str
    kind: str
    plural: str
    schema: str
    """Definition name, for example ``io.k8s.api.core.v1.Pod``."""
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    """Of ``status``, ``scale``, ``binding``, ``eviction``, ``log``, ``exec``, ``attach``, ``portforward``, ``proxy``,
    ``token``, ``approval``, ``finalize``, ``ephemeralcontainers``, ``resize``."""
    verbs: tuple[str, ...] = VERBS
    columns: tuple[Column, ...] = ()
    """After the Name column, which the generic layer adds, and instead of its default Age column."""
    generation_fields: tuple[str, ...] = ("spec",)
    """Top-level fields whose change bumps ``metadata.generation``; empty for kinds without generation. ``*``: all, but
    for metadata, and the status where it is a subresource."""
    selectable_fields: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    """Field selectors beyond ``metadata.name`` and ``metadata.namespace``."""
    indexed_fields: Mapping[str, Callable[[Object], str]] = field(default_factory=dict)
    """What other versions of the same resource select by."""
    default: Callable[[Object], None] = _no_change
    prepare_create: Callable[[Object], None] = _no_change
    prepare_update: Callable[[Object, Object], None] = _no_change_on_update
    validate: Callable[[Object], list[FieldError]] = _no_errors
    validate_create: Callable[[Object], list[FieldError]] = _no_errors
    """Beyond ``validate``, what holds only for new objects."""
    validate_update: Callable[[Object, Object], list[FieldError]] = _no_update_errors
    subwrites: Mapping[str, Subwrite] = field(default_factory=dict)
    """Subresources with rules of their own, instead of ``prepare_update`` and ``validate_update``."""
    grace_s: Callable[[Object], int] = field(default=lambda obj: 0)
    """Graceful deletion period when the request names none; 0 deletes at once (unless finalizers hold it)."""
    unconditional_update: bool = True
    """Whether a replacement may leave out ``metadata.resourceVersion``."""
    structure: "Structure | None" = None
    """How objects are decoded where ``schema`` is no built-in definition."""
    definitions: Mapping[str, Object] = field(default_factory=dict)
    """Definitions that this kind adds to OpenAPI; ``definitions_digest`` changes with them."""
    definitions_digest: str = ""
    stored: "Stored | None" = None
    """How objects are stored, where it is not as this kind."""
    list_kind: str = ""
    scale_paths: ScalePaths | None = None
    deprecation: str = ""
    """What whoever uses this version is warned of."""

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(self.group, self.plural)

    @property
    def kind_of_list(self) -> str:
        return self.list_kind or f"{self.kind}List"

    @property
    def store_key(self) -> ResourceKey:
        """What storage and watches are keyed by."""
        return self.stored.key if self.stored is not None else self.key

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

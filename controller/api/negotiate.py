"""Which representation of objects a client wants. Pure.

Spec: apiserver ``endpoints/handlers/negotiation``: ``Accept`` with ``as``, ``v`` and ``g`` parameters; JSON and YAML.
"""

from dataclasses import dataclass
from typing import Literal

from controller.api.status import ApiError

Form = Literal["object", "table", "metadata", "metadata-list", "aggregated-discovery"]
_FORMS: dict[tuple[str, str], Form] = {
    ("Table", "meta.k8s.io"): "table",
    ("PartialObjectMetadata", "meta.k8s.io"): "metadata",
    ("PartialObjectMetadataList", "meta.k8s.io"): "metadata-list",
    ("APIGroupDiscoveryList", "apidiscovery.k8s.io"): "aggregated-discovery",
}
_VERSIONS = {"table": "v1", "metadata": "v1", "metadata-list": "v1", "aggregated-discovery": "v2"}
_TYPES = {
    "application/json": "json",
    "application/yaml": "yaml",
    "*/*": "json",
    "application/*": "json",
    "text/*": "json",
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The chosen form and encoding (``json`` or ``yaml``)."""

    form: Form = "object"
    encoding: str = "json"
    pretty: bool = False


def negotiate(accept: str, *, watching: bool = False, plain: bool = False) -> Accepted:
    """First acceptable clause of an ``Accept`` header. Raises ``ApiError`` 406 when there is none.

    ``plain``: what is answered is no object of a collection, and has no other form than its own.
    """
    if not accept.strip():
        return Accepted()
    for clause in accept.split(","):
        media, *parameters = (part.strip() for part in clause.split(";"))
        encoding = _TYPES.get(media.lower())
        if encoding is None:
            continue
        values = dict(parameter.split("=", 1) for parameter in parameters if "=" in parameter)
        if "as" not in values:
            return Accepted("object", "json" if watching else encoding)
        form = _FORMS.get((values["as"], values.get("g", "")))
        if form is not None and not plain and values.get("v") == _VERSIONS[form]:
            return Accepted(form, "json" if watching else encoding)
    supported = "application/json, application/yaml"
    raise ApiError(406, "NotAcceptable", f"only the following media types are accepted: {supported}")

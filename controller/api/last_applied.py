"""kubectl's note of what it applied last client-side: read when it goes over to server-side apply, kept true. Pure.

Spec: apimachinery ``util/managedfields/internal/lastapplied*.go``.
"""

from typing import Final

import orjson

from controller.api import structure
from controller.api.fieldset import Paths
from controller.kinds.kind import Object
from controller.kinds.schemas import Shape

MANAGER: Final = "kubectl"
"""The one field manager that the note speaks for; with any other name a user opts out."""
ANNOTATION: Final = "kubectl.kubernetes.io/last-applied-configuration"
ANNOTATIONS_BYTES_MAX: Final = 256 * 1024


def untouched(shape: Shape, live: Object) -> Paths:
    """Paths that were applied client-side and still have the value that they were given then."""
    note = (live["metadata"].get("annotations") or {}).get(ANNOTATION)
    try:
        applied = orjson.loads(note or b"null")
    except ValueError:
        return frozenset()
    if not isinstance(applied, dict):
        return frozenset()
    since = structure.compare(shape, applied, live)
    return structure.paths_of(shape, applied) - since.modified - since.removed


def refresh(obj: Object, config: Object) -> None:
    """Bring the note in ``obj``, if it has one, to ``config``, so that client-side apply can go on from there."""
    annotations = obj["metadata"].get("annotations") or {}
    if not annotations.get(ANNOTATION):
        return
    metadata = {key: value for key, value in config.get("metadata", {}).items() if key != "managedFields"}
    if metadata.get("annotations"):
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != ANNOTATION}
    note = orjson.dumps({**config, "metadata": metadata}, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    others = sum(len(key) + len(value) for key, value in annotations.items() if key != ANNOTATION)
    annotations[ANNOTATION] = note if others + len(ANNOTATION) + len(note) <= ANNOTATIONS_BYTES_MAX else ""

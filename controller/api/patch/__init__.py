"""The patch types of the API: JSON (RFC 6902), merge (RFC 7386) and strategic merge. Pure."""

from typing import Any

from controller.api.body import decode_json, media_type
from controller.api.patch.json_patch import apply_json_patch, check_json_patch
from controller.api.patch.merge import merge
from controller.api.patch.strategic import strategic_merge
from controller.api.status import bad_request, unsupported_media
from controller.kinds.kind import Object
from controller.kinds.schemas import Shape

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


def decode_patch(raw: bytes, media: str) -> Any:
    """A checked patch document. Raises ``ApiError`` 400 or 415."""
    if media not in (JSON, MERGE, STRATEGIC):
        raise unsupported_media(
            "the body of the request was in an unknown format - accepted media types include: "
            f"{JSON}, {MERGE}, {STRATEGIC}, {APPLY}"
        )
    patch, _ = decode_json(raw)
    if media == JSON:
        check_json_patch(patch)
    elif not isinstance(patch, dict):
        raise bad_request("the patch must be a JSON object")
    return patch


def apply_patch(obj: Object, patch: Any, media: str, shape: Shape) -> Object:
    """Patched copy of ``obj``; ``patch`` is decoded or raw. Raises ``ApiError`` 400 or 422."""
    media = media_type(media)
    if isinstance(patch, bytes):
        patch = decode_patch(patch, media)
    if media == JSON:
        made = apply_json_patch(obj, patch)
    elif media == MERGE:
        made = merge(obj, patch)
    else:
        made = strategic_merge(obj, patch, shape)
    if not isinstance(made, dict):
        raise bad_request("the patched result is not an object")
    return made

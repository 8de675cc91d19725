"""Failures in the API's own words: ``ApiError`` and its ``metav1.Status``. Pure.

Spec: apimachinery ``api/errors`` and ``util/validation/field``: reasons, codes, messages, details.
"""

import json
from collections.abc import Sequence
from typing import Any

from common.errors import SphereError
from controller.kinds.kind import FieldError, Object, ResourceKey

_PREFIXES = {
    "FieldValueRequired": "Required value",
    "FieldValueInvalid": "Invalid value",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueTooLong": "Too long",
    "FieldValueTooMany": "Too many",
    "FieldValueTypeInvalid": "Invalid value",
    "FieldValueNotFound": "Not found",
    "InternalError": "Internal error",
}
_WITHOUT_VALUE = {"FieldValueRequired", "FieldValueForbidden", "FieldValueTooLong", "InternalError"}


class ApiError(SphereError):
    """A refused request. ``code`` is the HTTP status, ``details`` as in ``metav1.StatusDetails``."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Object | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.headers = headers or {}
        self.metadata: Object = {}
        """The Status' ``metav1.ListMeta``."""

    def status(self) -> Object:
        """The ``metav1.Status`` object."""
        status: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


def success(details: Object) -> Object:
    """The Status that a finished delete answers with."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _details(resource: ResourceKey, name: str) -> Object:
    details: Object = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    return details


def not_found(resource: ResourceKey, name: str) -> ApiError:
    """``pods "x" not found``."""
    return ApiError(404, "NotFound", f'{resource} "{name}" not found', _details(resource, name))


def no_such_path() -> ApiError:
    """What an unknown resource or path answers."""
    return ApiError(404, "NotFound", "the server could not find the requested resource")


def already_exists(resource: ResourceKey, name: str) -> ApiError:
    """``pods "x" already exists``."""
    return ApiError(409, "AlreadyExists", f'{resource} "{name}" already exists', _details(resource, name))


def conflict(resource: ResourceKey, name: str, why: str = "") -> ApiError:
    """A failed precondition; without ``why``, that the object has been modified."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {resource} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(resource, name))


def bad_request(message: str) -> ApiError:
    """400 with ``message`` as it is."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: credentials missing or wrong."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: ResourceKey, name: str, why: str) -> ApiError:
    """``pods "x" is forbidden: why``."""
    what = f'{resource} "{name}"' if name else f"{resource}"
    return ApiError(403, "Forbidden", f"{what} is forbidden: {why}", _details(resource, name))


def method_not_allowed() -> ApiError:
    """405."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def expired(message: str) -> ApiError:
    """410: list again."""
    return ApiError(410, "Expired", message)


def expired_page(token: str) -> ApiError:
    """410 for a page of a state that is gone; ``token`` goes on in the present one."""
    err = expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list "
        "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
        "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
        "modified, or deleted between the time the first chunk was returned and now may show up in the list."
    )
    err.metadata = {"continue": token}
    return err


def too_old(asked: int, oldest: int) -> ApiError:
    """410 for a resourceVersion whose events are gone."""
    return expired(f"too old resource version: {asked} ({oldest})")


def too_large_version(asked: int, current: int) -> ApiError:
    """504 for a resourceVersion that this server has not seen yet."""
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return ApiError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {"causes": [cause], "retryAfterSeconds": 1},
        {"Retry-After": "1"},
    )


def unsupported_media(message: str) -> ApiError:
    """415."""
    return ApiError(415, "UnsupportedMediaType", message)


def too_large(limit: int) -> ApiError:
    """413."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unavailable(message: str) -> ApiError:
    """503 that clients retry after a second."""
    return ApiError(503, "ServiceUnavailable", message, {"retryAfterSeconds": 1}, {"Retry-After": "1"})


def _go_value(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def field_error_body(error: FieldError) -> str:
    """``Invalid value: -1: must be ...``: a field error without its path."""
    prefix = _PREFIXES.get(error.type, error.type)
    if error.type in _WITHOUT_VALUE:
        return f"{prefix}: {error.detail}" if error.detail else prefix
    if error.type == "FieldValueDuplicate" and not error.detail:
        return f"{prefix}: {_go_value(error.value)}"
    return f"{prefix}: {_go_value(error.value)}" + (f": {error.detail}" if error.detail else "")


def field_error_text(error: FieldError) -> str:
    """``spec.replicas: Invalid value: -1: must be ...``."""
    return f"{error.path}: {field_error_body(error)}"


def invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422: ``Deployment.apps "x" is invalid: [...]``."""
    what = f"{kind}.{group}" if group else kind
    texts = list(dict.fromkeys(field_error_text(error) for error in errors))
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: Object = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [
        {"reason": error.type, "message": field_error_body(error), "field": error.path} for error in errors
    ]
    return ApiError(422, "Invalid", f'{what} "{name}" is invalid: {listed}', details)


def is_conflict(err: BaseException) -> bool:
    """The object changed meanwhile, or a precondition failed."""
    return isinstance(err, ApiError) and err.reason == "Conflict"


def is_not_found(err: BaseException) -> bool:
    """The object does not exist."""
    return isinstance(err, ApiError) and err.reason == "NotFound"


def is_already_exists(err: BaseException) -> bool:
    """An object of this name exists."""
    return isinstance(err, ApiError) and err.reason == "AlreadyExists"

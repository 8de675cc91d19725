"""JSON merge patch, RFC 7386. Pure: neither argument is changed, the result may share parts with both."""

from typing import Any


def merge(target: Any, patch: Any) -> Any:
    """``patch`` laid over ``target``: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = merge(result.get(key), value)
        else:
            result[key] = value
    return result

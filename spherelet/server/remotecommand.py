"""Channels of exec, attach and port-forward over WebSocket: ``v4.channel.k8s.io`` and ``v5.channel.k8s.io``. Pure.

Every binary message is one channel byte and its payload. v5 adds channel 255: its payload names a channel that the
client closes (how standard input ends).
"""

from typing import Any, Final

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


def exit_status(code: int) -> dict[str, Any]:
    """``metav1.Status`` that ends a command, in the words kubectl understands."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        "code": 500,
    }


def failure_status(message: str, *, reason: str = "InternalError", code: int = 500) -> dict[str, Any]:
    """``metav1.Status`` for a command that could not be run."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


def window_size(payload: dict[str, Any]) -> tuple[int, int] | None:
    """(rows, columns) of a resize message ``{"Width":..,"Height":..}``, or None when it makes no sense."""
    rows, columns = payload.get("Height"), payload.get("Width")
    if isinstance(rows, int) and isinstance(columns, int) and 0 < rows < 65536 and 0 < columns < 65536:
        return rows, columns
    return None

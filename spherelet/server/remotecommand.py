"""Channels of exec, attach and port-forward over WebSocket, by the subprotocols of ``channel.k8s.io``. Pure.

Every binary message is one channel byte and its payload. v5 adds channel 255: its payload names a channel that the
client closes (how standard input ends). Before v4 the end of a command is told in words, and success not at all. In
the base64 variants messages are text: the channel's digit and its payload in base64.
"""

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any, Final

import orjson

V5: Final = "v5.channel.k8s.io"
V4: Final = "v4.channel.k8s.io"
V4_BASE64: Final = "v4.base64.channel.k8s.io"
V1: Final = "channel.k8s.io"
V1_BASE64: Final = "base64.channel.k8s.io"
PROTOCOLS: Final = (V5, V4, V4_BASE64, V1, V1_BASE64)
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


@dataclass(frozen=True, slots=True)
class Framing:
    """How the messages of one subprotocol are written."""

    protocol: str

    @property
    def is_text(self) -> bool:
        """Whether messages are base64 text."""
        return self.protocol in (V4_BASE64, V1_BASE64)

    def message(self, channel: int, payload: bytes) -> bytes:
        """A message; ASCII if ``is_text``."""
        return str(channel).encode() + b64encode(payload) if self.is_text else bytes((channel,)) + payload

    def parse(self, message: bytes) -> tuple[int, bytes] | None:
        """(channel, payload); None for what is no message of this subprotocol."""
        if not self.is_text:
            return (message[0], message[1:]) if message else None
        try:
            return int(message[:1]), b64decode(message[1:], validate=True)
        except (ValueError, binascii.Error):
            return None

    def ending(self, status: dict[str, Any]) -> bytes | None:
        """The final payload of the error channel, or None when nothing is said."""
        if self.protocol not in (V1, V1_BASE64):
            return orjson.dumps(status)
        return None if status["status"] == "Success" else str(status["message"]).encode()


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

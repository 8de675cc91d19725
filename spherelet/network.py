"""The network agent's socket on this host: one JSON object a line, one request per connection."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from common.errors import Retryable
from spherelet.config import drain_timeout_s, network_timeout_s

ANSWER_MARGIN_S = 5.0
INTERFACE = "eth0"


class NetworkFailed(Retryable):
    """The network agent could not do it now; the message says why."""


@dataclass(frozen=True, slots=True)
class Network:
    """Client of the agent. Every operation is idempotent and may be repeated after any failure."""

    socket: Path

    async def add(self, uid: str, netns: Path) -> str:
        """Have the pod's interface made; its address, once the pod may talk.

        That is when policy is in force here and on its peers, or the bounded wait is over.
        """
        request = {
            "op": "add",
            "pod_uid": uid,
            "netns": str(netns),
            "ifname": INTERFACE,
            "timeout_s": network_timeout_s,
        }
        return str((await self._ask(request, network_timeout_s))["address"])

    async def delete(self, uid: str, netns: Path) -> None:
        """Remove the pod's interface and rules."""
        await self._ask({"op": "del", "pod_uid": uid, "netns": str(netns)}, 10.0)

    async def drained(self, uid: str, timeout_s: float = drain_timeout_s) -> bool:
        """Wait until every load balancer has forgotten the pod. False if the time was over first."""
        answer = await self._ask({"op": "drained", "pod_uid": uid, "timeout_s": timeout_s}, timeout_s)
        return bool(answer.get("drained"))

    async def _ask(self, request: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s + ANSWER_MARGIN_S):
                reader, writer = await asyncio.open_unix_connection(str(self.socket))
                try:
                    writer.write(orjson.dumps(request) + b"\n")
                    await writer.drain()
                    line = await reader.readline()
                finally:
                    writer.close()
        except TimeoutError as err:
            raise NetworkFailed(f"the network agent did not answer {request['op']} in {timeout_s:.0f} s") from err
        except OSError as err:
            raise NetworkFailed(f"the network agent cannot be reached at {self.socket}: {err.strerror}") from err
        try:
            answer = orjson.loads(line)
        except orjson.JSONDecodeError as err:
            raise NetworkFailed(f"the network agent ended before it answered {request['op']}") from err
        if not answer.get("ok"):
            raise NetworkFailed(f"{answer.get('code', 'failed')}: {answer.get('message', 'no reason given')}")
        return answer  # type: ignore[no-any-return]

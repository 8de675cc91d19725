"""The node-local socket: pods' links on request. One JSON object a line, one request a connection.

``prepare`` wires the pod and returns; ``add`` also waits until this host enforces the port and, as far as the
namespace's answer to a late barrier says so (``PortItem.strict``), until all other hosts know it. A pod whose port is
not in force here never gets a route, whatever the timeout: that part is not negotiable.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from common.clock import Clock
from common.errors import ConfigError, Retryable
from common.logs import logger
from common.messages import PortItem
from nsx_agent.config import CNI_TIMEOUT_S_MAX
from nsx_agent.kernel import ownership
from nsx_agent.kernel.links import PodLink

log = logger("cni")
REQUEST_BYTES_MAX: Final = 16384
Reply = dict[str, Any]


class Request(msgspec.Struct, frozen=True):
    """What a client may ask. ``netns`` is a path."""

    op: str
    pod_uid: str = ""
    netns: str = ""
    ifname: str = "eth0"
    timeout_s: float = 20.0


class Ports(Protocol):
    """What the server needs of the loop and the kernel."""

    def port(self, pod_uid: str) -> PortItem | None: ...
    def in_force(self, port: PortItem) -> bool: ...
    def connect(self, port: PortItem) -> object: ...
    def mtu(self) -> int: ...
    async def wire(self, link: PodLink) -> None: ...
    async def unwire(self, pod_uid: str) -> None: ...
    async def wait_until(self, condition: Callable[[], bool], timeout_s: float) -> bool: ...
    def status(self) -> Mapping[str, Any]: ...


class Meter(Protocol):
    def cni(self, op: str, ok: bool, seconds: float) -> None: ...


class CniServer:
    """Answers requests on a unix socket that only root can open."""

    def __init__(self, path: Path, ports: Ports, meter: Meter, clock: Clock) -> None:
        self._path = path
        self._ports = ports
        self._meter = meter
        self._clock = clock
        self._busy: dict[str, asyncio.Lock] = {}

    async def run(self) -> None:
        """Serve until cancelled. Raises ``ConfigError`` if the socket cannot be made."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                server = await asyncio.start_unix_server(self._serve, str(self._path), limit=REQUEST_BYTES_MAX)
            finally:
                os.umask(before)
        except OSError as err:
            raise ConfigError(f"cannot listen on {self._path}: {err.strerror or err}; check `socket`") from err
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 10.0)
            reply = await self.answer(line)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        except (TimeoutError, ConnectionError, ValueError):
            pass  # the client is gone or talks nonsense; it can ask again
        finally:
            writer.close()

    async def answer(self, line: bytes) -> Reply:
        """The reply to one request line. Never raises for what a client may send."""
        began = self._clock.monotonic()
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as err:
            return _failed("failed", f"not a request: {err}")
        work = self._operation(request.op)
        if work is None:
            return _failed("failed", f"unknown op {request.op!r:.40}; use add, prepare, del, drained or status")
        if request.op != "status" and not request.pod_uid:
            return _failed("failed", "pod_uid is missing")
        try:
            reply = await work(request)
        except (Retryable, ValueError) as err:  # ValueError: what no path or name can be
            reply = _failed("failed", str(err))
        self._meter.cni(request.op, bool(reply["ok"]), self._clock.monotonic() - began)
        if not reply["ok"]:
            log.warning("request failed", uid=request.pod_uid, reason=reply["message"], op=request.op)
        return reply

    def _operation(self, op: str) -> Callable[[Request], Awaitable[Reply]] | None:
        return {
            "add": self._add,
            "prepare": self._prepare,
            "del": self._del,
            "drained": self._drained,
            "status": self._status,
        }.get(op)

    async def _add(self, request: Request) -> Reply:
        deadline = self._clock.monotonic() + min(request.timeout_s, CNI_TIMEOUT_S_MAX)
        reply = await self._prepare(request)
        if not reply["ok"]:
            return reply
        uid = request.pod_uid

        def here() -> bool:
            port = self._ports.port(uid)
            return port is not None and self._ports.in_force(port)

        def cleared() -> bool:
            port = self._ports.port(uid)
            return port is not None and port.cleared

        if not await self._ports.wait_until(here, deadline - self._clock.monotonic()):
            return _failed("timeout", "this host does not enforce the pod's port and policies yet")
        everywhere = await self._ports.wait_until(cleared, deadline - self._clock.monotonic())
        port = self._ports.port(uid)
        if port is None:
            return _failed("unknown-port", "the pod's port was withdrawn")
        if not everywhere and port.strict:
            return _failed("timeout", "other hosts have not confirmed the pod's port yet")
        if not self._ports.in_force(port):
            return _failed("timeout", "this host does not enforce the pod's port and policies any more")
        self._ports.connect(port)
        return {**reply, "cleared": everywhere}

    async def _prepare(self, request: Request) -> Reply:
        uid = request.pod_uid
        timeout_s = min(request.timeout_s, CNI_TIMEOUT_S_MAX)
        if not await self._ports.wait_until(lambda: self._ports.port(uid) is not None, timeout_s):
            return _failed("unknown-port", f"no port for pod {uid} was announced in {timeout_s} s")
        port = self._ports.port(uid)
        assert port is not None
        mtu = self._ports.mtu()
        async with self._busy.setdefault(uid, asyncio.Lock()):
            link = PodLink(uid, request.netns, request.ifname, port.address, port.mac, mtu)
            await self._ports.wire(link)
            now = self._ports.port(uid)  # it may have been withdrawn meanwhile
            if now is not None and self._ports.in_force(now):
                self._ports.connect(now)
        gateway = ownership.POD_GATEWAY
        return {
            "ok": True, "address": port.address, "prefix": 32, "gateway": gateway, "mac": port.mac, "mtu": mtu,
        }  # fmt: skip

    async def _del(self, request: Request) -> Reply:
        async with self._busy.setdefault(request.pod_uid, asyncio.Lock()):
            await self._ports.unwire(request.pod_uid)
        self._busy.pop(request.pod_uid, None)
        return {"ok": True}

    async def _drained(self, request: Request) -> Reply:
        def drained() -> bool:
            port = self._ports.port(request.pod_uid)
            return port is None or port.drained

        outcome = await self._ports.wait_until(drained, min(request.timeout_s, CNI_TIMEOUT_S_MAX))
        return {"ok": True, "drained": outcome}

    async def _status(self, request: Request) -> Reply:
        return {"ok": True, **self._ports.status()}


def _failed(code: str, message: str) -> Reply:
    return {"ok": False, "code": code, "message": message}

"""One attempt of one probe. Network probes go out from inside the pod's own network, so no policy is in their way."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from common.errors import SphereError
from spherelet import execution
from spherelet.model import ContainerState
from spherelet.netns import socket_in
from spherelet.probes import grpc_health

Object = dict[str, Any]
HEADER_BYTES_MAX: Final = 16 << 10
USER_AGENT: Final = "kube-probe/1.36"


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to probe. ``command`` is the OCI runtime with its global options; ``ports`` by name."""

    state: ContainerState
    pod_ip: str
    ports: dict[str, int]
    command: Sequence[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``message`` is upstream's text, for the event of a failure."""

    ok: bool
    message: str = ""


async def attempt(probe: Object, target: Target) -> Verdict:
    """Run the probe once, within its timeout. Never raises for what the container does."""
    timeout_s = float(probe.get("timeoutSeconds") or 1)
    try:
        if "exec" in probe:
            return await _exec(probe["exec"].get("command") or [], target, timeout_s)
        if "httpGet" in probe:
            return await _http(probe["httpGet"], target, timeout_s)
        if "tcpSocket" in probe:
            return await _tcp(probe["tcpSocket"], target, timeout_s)
        if "grpc" in probe:
            return await _grpc(probe["grpc"], target, timeout_s)
    except SphereError as err:
        return Verdict(False, str(err))
    return Verdict(False, "missing probe handler")


async def _exec(argv: Sequence[str], target: Target, timeout_s: float) -> Verdict:
    try:
        code, output = await execution.run(target.command, target.state, argv, timeout_s)
    except TimeoutError:
        return Verdict(False, f'command timed out: "{" ".join(argv)}" timed out after {timeout_s:g}s')
    return Verdict(code == 0, output)


def _address(where: Object, target: Target) -> tuple[str, int, Path | None]:
    """Host, port, and the network to go out from: another host is reached from this host's network."""
    host = str(where.get("host") or "")
    port = where.get("port")
    number = target.ports.get(str(port), 0) if not str(port).isdigit() else int(str(port))
    if not 0 < number < 65536:
        raise _bad(f"couldn't extract port: no port named {port!r}")
    return (host, number, None) if host else (target.pod_ip, number, target.state.netns)


class _Unusable(SphereError):
    """The probe itself makes no sense."""


def _bad(text: str) -> _Unusable:
    return _Unusable(text)


async def _connect(host: str, port: int, netns: Path | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket_in(netns, family)
    try:
        await asyncio.get_running_loop().sock_connect(made, (host, port))
    except BaseException:
        made.close()
        raise
    return made


def _dial_error(host: str, port: int, err: OSError) -> str:
    if isinstance(err, TimeoutError) and not err.errno:
        return f"dial tcp {_joined(host, port)}: i/o timeout"
    return f"dial tcp {_joined(host, port)}: connect: {os.strerror(err.errno or 0).lower()}"


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _tcp(where: Object, target: Target, timeout_s: float) -> Verdict:
    host, port, netns = _address(where, target)
    try:
        async with asyncio.timeout(timeout_s):
            (await _connect(host, port, netns)).close()
    except OSError as err:
        return Verdict(False, _dial_error(host, port, err))
    return Verdict(True)


async def _http(where: Object, target: Target, timeout_s: float) -> Verdict:
    host, port, netns = _address(where, target)
    scheme = str(where.get("scheme") or "HTTP").lower()
    path = str(where.get("path") or "/")
    path = path if path.startswith("/") else "/" + path
    url = f"{scheme}://{_joined(host, port)}{path}"
    try:
        async with asyncio.timeout(timeout_s):
            try:
                made = await _connect(host, port, netns)
            except OSError as err:
                return Verdict(False, f'Get "{url}": {_dial_error(host, port, err)}')
            status = await _status(made, _request(where, host, port, path), tls=scheme == "https")
    except TimeoutError:
        return Verdict(
            False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
        )
    except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as err:
        return Verdict(False, f'Get "{url}": {err or "EOF"}')
    if status is None:
        return Verdict(False, f'Get "{url}": malformed HTTP response')
    return Verdict(200 <= status < 400, "" if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}")


def _request(where: Object, host: str, port: int, path: str) -> bytes:
    headers = {"host": _joined(host, port), "user-agent": USER_AGENT, "accept": "*/*", "connection": "close"}
    for each in where.get("httpHeaders") or ():
        headers[str(each["name"]).lower()] = str(each.get("value") or "")
    lines = [f"GET {_quoted(path)} HTTP/1.1", *(f"{name}: {_clean(value)}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _quoted(path: str) -> str:
    """A request target without what would end it early."""
    return path.replace(" ", "%20").replace("\r", "%0D").replace("\n", "%0A")


def _clean(value: str) -> str:
    return value.replace("\r", " ").replace("\n", " ")


async def _status(made: socket.socket, request: bytes, *, tls: bool) -> int | None:
    """Send ``request`` and read the status code of the answer; None when it is not HTTP."""
    context = _unverified() if tls else None
    try:
        reader, writer = await asyncio.open_connection(
            sock=made, ssl=context, server_hostname="probe" if tls else None, limit=HEADER_BYTES_MAX
        )
    except BaseException:
        made.close()
        raise
    try:
        writer.write(request)
        await writer.drain()
        line = await reader.readuntil(b"\n")
    finally:
        writer.close()
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return None
    return int(parts[1])


def _unverified() -> ssl.SSLContext:
    """Probes do not check certificates, as upstream: they ask for health, not for identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _grpc(where: Object, target: Target, timeout_s: float) -> Verdict:
    host, port, netns = _address(where, target)
    try:
        async with asyncio.timeout(timeout_s):
            made = await _connect(host, port, netns)
            try:
                reader, writer = await asyncio.open_connection(sock=made)
            except BaseException:
                made.close()
                raise
            with contextlib.closing(writer):
                status = await grpc_health.check(reader, writer, str(where.get("service") or ""), _joined(host, port))
    except TimeoutError:
        return Verdict(False, f'timeout: failed to connect service "{_joined(host, port)}" within {timeout_s:g}s')
    except (OSError, asyncio.IncompleteReadError) as err:
        return Verdict(False, f'error: failed to connect service "{_joined(host, port)}": {err}')
    if status == grpc_health.SERVING:
        return Verdict(True)
    name = grpc_health.STATUS_NAMES.get(status) if status is not None else None
    return Verdict(False, f'service unhealthy (responded with "{name}")' if name else "error: health rpc failed")

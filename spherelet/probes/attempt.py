"""One attempt of one probe. Network probes go out from inside the pod's own network, so no policy is in their way."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import SphereError, Terminal
from spherelet import execution
from spherelet.http_get import Place, connect, dial_error, get
from spherelet.model import ContainerState
from spherelet.probes import grpc_health

Object = dict[str, Any]


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
    except (SphereError, OSError) as err:  # OSError: this host cannot run a command now
        return Verdict(False, str(err))
    return Verdict(False, "missing probe handler")


async def _exec(argv: Sequence[str], target: Target, timeout_s: float) -> Verdict:
    try:
        code, output = await execution.run(target.command, target.state, argv, timeout_s)
    except TimeoutError:
        return Verdict(False, f'command timed out: "{" ".join(argv)}" timed out after {timeout_s:g}s')
    return Verdict(code == 0, output)


def _place(where: Object, target: Target) -> Place:
    """Where to probe: another host is reached from this host's network."""
    host = str(where.get("host") or "")
    port = where.get("port")
    number = target.ports.get(str(port), 0) if not str(port).isdigit() else int(str(port))
    if not 0 < number < 65536:
        raise Terminal(f"couldn't extract port: no port named {port!r}")
    return Place(host, number, None) if host else Place(target.pod_ip, number, target.state.netns)


async def _tcp(where: Object, target: Target, timeout_s: float) -> Verdict:
    place = _place(where, target)
    try:
        async with asyncio.timeout(timeout_s):
            (await connect(place)).close()
    except OSError as err:
        return Verdict(False, dial_error(place, err))
    return Verdict(True)


async def _http(where: Object, target: Target, timeout_s: float) -> Verdict:
    status = await get(where, _place(where, target), timeout_s)
    return Verdict(200 <= status < 400, "" if 200 <= status < 400 else f"HTTP probe failed with statuscode: {status}")


async def _grpc(where: Object, target: Target, timeout_s: float) -> Verdict:
    place = _place(where, target)
    try:
        async with asyncio.timeout(timeout_s):
            made = await connect(place)
            try:
                reader, writer = await asyncio.open_connection(sock=made)
            except BaseException:
                made.close()
                raise
            with contextlib.closing(writer):
                status = await grpc_health.check(reader, writer, str(where.get("service") or ""), str(place))
    except TimeoutError:
        return Verdict(False, f'timeout: failed to connect service "{place}" within {timeout_s:g}s')
    except (OSError, asyncio.IncompleteReadError) as err:
        return Verdict(False, f'error: failed to connect service "{place}": {err}')
    if status == grpc_health.SERVING:
        return Verdict(True)
    name = grpc_health.STATUS_NAMES.get(status) if status is not None else None
    return Verdict(False, f'service unhealthy (responded with "{name}")' if name else "error: health rpc failed")

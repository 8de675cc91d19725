"""Lifecycle hooks: postStart and preStop by exec, http or sleep."""

import asyncio
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import orjson

from common.errors import Retryable
from spherelet.model import ContainerState, ContainerView, Object
from spherelet.runtime import process
from spherelet.runtime.client import Runtime

OUTPUT_CHARS_MAX = 512


class HookFailed(Retryable):
    """A hook failed; the message is what the event shows."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """Runs hooks in or against running containers."""

    runtime: Runtime

    async def run(
        self, handler: Object, container: ContainerView, state: ContainerState, address: str, timeout_s: float
    ) -> None:
        """Run one ``lifecycle`` handler to its end. Raises ``HookFailed``."""
        try:
            async with asyncio.timeout(timeout_s):
                if "exec" in handler:
                    await self._exec(handler["exec"].get("command") or [], state, timeout_s)
                elif "httpGet" in handler:
                    await _http(handler["httpGet"], container, address)
                elif "sleep" in handler:
                    await asyncio.sleep(float(handler["sleep"].get("seconds", 0)))
        except TimeoutError as err:
            raise HookFailed(f"the hook did not end within {timeout_s:.0f} s") from err

    async def _exec(self, command: list[str], state: ContainerState, timeout_s: float) -> None:
        config = orjson.loads((state.bundle / "config.json").read_bytes())
        spec = {**config["process"], "args": command, "terminal": False}
        handle, name = tempfile.mkstemp(dir=state.directory, prefix=".hook-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps(spec))
            argv = self.runtime.exec_argv(state.id, state.handler, Path(name))
            ended = await process.run(argv, timeout_s=timeout_s + 5)
        finally:
            Path(name).unlink(missing_ok=True)
        if ended.code != 0:
            output = ended.output.decode("utf-8", "replace")[:OUTPUT_CHARS_MAX]
            raise HookFailed(f"command '{' '.join(command)}' exited with {ended.code}: {output}")


async def _http(get: Object, container: ContainerView, address: str) -> None:
    port = get["port"]
    if isinstance(port, str) and not port.isdigit():
        named = {each.get("name"): each["containerPort"] for each in container.spec.get("ports") or ()}
        if port not in named:
            raise HookFailed(f'the hook names port "{port}", which the container does not declare')
        port = named[port]
    scheme = str(get.get("scheme") or "HTTP").lower()
    url = f"{scheme}://{get.get('host') or address}:{port}/{str(get.get('path') or '/').lstrip('/')}"
    headers = {each["name"]: each["value"] for each in get.get("httpHeaders") or ()}
    try:
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers, ssl=False) as answer:
            if answer.status >= 400:
                raise HookFailed(f"{url} answered {answer.status}")
    except (aiohttp.ClientError, OSError) as err:
        raise HookFailed(f"{url}: {err}") from err

"""Lifecycle hooks: postStart and preStop by exec, http or sleep."""

import asyncio
from dataclasses import dataclass

import aiohttp

from common.errors import Retryable
from spherelet import execution
from spherelet.model import ContainerState, ContainerView, Object
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
                    await self._exec(handler["exec"].get("command") or [], state)
                elif "httpGet" in handler:
                    await _http(handler["httpGet"], container, address)
                elif "sleep" in handler:
                    await asyncio.sleep(float(handler["sleep"].get("seconds", 0)))
        except TimeoutError as err:
            raise HookFailed(f"the hook did not end within {timeout_s:.0f} s") from err

    async def _exec(self, command: list[str], state: ContainerState) -> None:
        code, output = await execution.run(self.runtime.command(state.handler), state, command)
        if code != 0:
            text = output[:OUTPUT_CHARS_MAX]
            raise HookFailed(f"command '{' '.join(command)}' exited with {code}: {text}")


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

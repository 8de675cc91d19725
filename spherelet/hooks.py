"""Lifecycle hooks: postStart and preStop by exec, http, tcp or sleep."""

import asyncio
from dataclasses import dataclass

from common.errors import Retryable, SphereError
from spherelet import execution
from spherelet.http_get import Place, connect, dial_error, get
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
        """Run one ``lifecycle`` handler to its end. Raises ``HookFailed``, and nothing else."""
        try:
            async with asyncio.timeout(timeout_s):
                if "exec" in handler:
                    await self._exec(handler["exec"].get("command") or [], state)
                elif "httpGet" in handler:
                    # Whatever the answer says, the hook was heard; upstream looks no further either.
                    wanted = handler["httpGet"]
                    await get(wanted, _place(wanted, container, state, address), timeout_s)
                elif "tcpSocket" in handler:
                    await _tcp(_place(handler["tcpSocket"], container, state, address))
                elif "sleep" in handler:
                    await asyncio.sleep(float(handler["sleep"].get("seconds", 0)))
        except TimeoutError as err:
            raise HookFailed(f"the hook did not end within {timeout_s:.0f} s") from err
        except HookFailed:
            raise
        except (SphereError, OSError) as err:  # the container may be gone, or this host can run nothing now
            raise HookFailed(str(err)) from err

    async def _exec(self, command: list[str], state: ContainerState) -> None:
        code, output = await execution.run(self.runtime.command(state.handler), state, command)
        if code != 0:
            text = output[:OUTPUT_CHARS_MAX]
            raise HookFailed(f"command '{' '.join(command)}' exited with {code}: {text}")


async def _tcp(place: Place) -> None:
    try:
        (await connect(place)).close()
    except OSError as err:
        raise HookFailed(dial_error(place, err)) from err


def _place(wanted: Object, container: ContainerView, state: ContainerState, address: str) -> Place:
    """Where the hook goes: to the pod from its own network, to another host from this host's."""
    port = wanted.get("port")
    if isinstance(port, str) and not port.isdigit():
        named = {each.get("name"): each["containerPort"] for each in container.spec.get("ports") or ()}
        if port not in named:
            raise HookFailed(f'the hook names port "{port}", which the container does not declare')
        port = named[port]
    host = str(wanted.get("host") or "")
    return Place(host, int(port or 80), None) if host else Place(address, int(port or 80), state.netns)

"""How every daemon starts: ``--config``, logs, uvloop, signals, one task tree."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import prometheus_client
import uvloop

from common import logs
from common.errors import SphereError
from common.settings import load

T = TypeVar("T")
log = logs.logger("entry")


def daemon(
    name: str, settings: type[T], main: Callable[[T], Awaitable[None]], *, fast_loop: bool = True
) -> click.Command:
    """Build the command line of daemon ``name``: it loads ``settings`` and runs ``main`` until SIGTERM or SIGINT.

    ``fast_loop=False`` keeps the standard event loop where uvloop lacks something (AF_NETLINK sockets).
    Exit status: 0 after a signal, 2 for a bad config, 1 for anything else.
    """

    @click.command(name=name, context_settings={"help_option_names": ["-h", "--help"]})
    @click.option("--config", type=click.Path(path_type=Path, dir_okay=False), required=True, help="TOML config file.")
    @click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
    @click.option("--check", is_flag=True, help="Only check the config file; exit 0 if it is valid.")
    @click.version_option(package_name="sphere")
    def command(config: Path, log_level: str, check: bool) -> None:
        logs.configure(name, log_level)
        try:
            loaded = load(config, settings)
        except SphereError as err:
            click.echo(f"{name}: {err}", err=True)
            sys.exit(2)
        if check:
            click.echo(f"{name}: {config} is valid")
            return
        # Times of creation are a third of all series, and nobody asks for them.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        gc.freeze()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if fast_loop else None) as runner:
            runner.run(_until_signal(main(loaded)))

    command.__doc__ = f"Run {name} in the foreground."
    return command


def on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaits is logged; that a peer hung up while it was written to is no error (uvloop calls it fatal)."""
    error = context.get("exception")
    if isinstance(error, RuntimeError) and "the handler is closed" in str(error):
        log.info("a connection ended while it was written to", reason=str(context.get("message")).splitlines()[0])
    else:
        loop.default_exception_handler(context)


async def _until_signal(work: Awaitable[None]) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(on_loop_error)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async def run() -> None:
        await work

    async def wait_stop(task: asyncio.Task[None]) -> None:
        await stop.wait()
        task.cancel()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(run())
        watcher = group.create_task(wait_stop(task))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
        watcher.cancel()

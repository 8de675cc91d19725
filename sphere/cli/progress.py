"""Progress of a long command: a live line on a terminal, plain lines elsewhere. Goes to standard error."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that reports one finished step."""
    started = time.monotonic()

    def line(text: str) -> str:
        return f"{time.monotonic() - started:5.1f} s  {text}"

    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
        yield lambda text: print(line(text), file=sys.stderr, flush=True)
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status(title):
        yield lambda text: console.print(line(text), markup=False)

"""nft(8) as a subprocess: changes to script text, one script one kernel transaction.

The library behind nft is not loaded into this process: it is under another licence, and a process of its own also
gives its memory back.
"""

import asyncio
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from common.errors import Retryable, Terminal
from nsx_agent.kernel.elements import Part
from nsx_agent.kernel.netlink import NETLINK_NETFILTER, Netlink, NetlinkError, NetlinkUncertain
from nsx_agent.kernel.ownership import NFT_FAMILY, NFT_TABLE
from nsx_agent.model import (
    VERDICT_SETS,
    ChainKey,
    ChainSpec,
    Change,
    DropChain,
    DropElement,
    DropSet,
    ElementKey,
    Entries,
    PutChain,
    PutElement,
    PutSet,
    SetKey,
    SetSpec,
)

TABLE: Final = f"{NFT_FAMILY} {NFT_TABLE}"
STAMP_SET: Final = "stamp"
UNFINISHED: Final = "+"
ELEMENTS_MAX: Final = 2000
"""Elements per transaction: larger ones hold the kernel's commit lock too long."""
TIMEOUT_S: Final = 60.0
RECENT_RUNS: Final = 256


class Rejected(Terminal):
    """nft refused a script; nothing of it is in the kernel."""


def prologue(counters: Mapping[str, int]) -> str:
    """Creates the table and what is outside of entries; a counter begins at its packets. Harmless when all exists."""
    lines = [f"add table {TABLE}", f"add set {TABLE} {STAMP_SET} {{ type mark; }}"]
    lines += [
        f"add counter {TABLE} {name}" + (f" {{ packets {packets} bytes 0 }}" if packets else "")
        for name, packets in counters.items()
    ]
    return "\n".join(lines) + "\n"


def replacement() -> str:
    """Removes the table, present or not; what follows in the same script takes its place without a gap."""
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def stamp(value: str) -> str:
    """Marks which intent the table holds. ``value`` is ours, without quotes."""
    return f'flush set {TABLE} {STAMP_SET}\nadd element {TABLE} {STAMP_SET} {{ 1 comment "{value}" }}\n'


def unfinished(value: str) -> str:
    """The stamp of a table that is on its way to what the stamp ``value`` stands for, or misses some of it."""
    return value if value.endswith(UNFINISHED) else value + UNFINISHED


def script(changes: Sequence[Change]) -> str:
    """Text of one transaction. ``changes`` are in plan order; those that are not nft's are skipped."""
    lines: list[str] = []
    chains = [change for change in changes if isinstance(change, PutChain)]
    lines += [_put_set(change.name, change.spec) for change in changes if isinstance(change, PutSet)]
    lines += [_declare(change) for change in chains if change.fresh]
    for chain in chains:
        if not chain.fresh:
            lines.append(f"flush chain {TABLE} {chain.name}")
        lines += [f"add rule {TABLE} {chain.name} {rule}" for rule in chain.spec.rules]
    lines += _elements(changes)
    dropped = [change.name for change in changes if isinstance(change, DropChain)]
    lines += [f"flush chain {TABLE} {name}" for name in dropped]
    lines += [f"delete chain {TABLE} {name}" for name in dropped]
    lines += [f"delete set {TABLE} {change.name}" for change in changes if isinstance(change, DropSet)]
    return "".join(line + "\n" for line in lines)


def whole(entries: Entries) -> str:
    """Text that builds the table's content from nothing."""
    changes: list[Change] = []
    for key, value in entries.items():
        if isinstance(key, SetKey) and isinstance(value, SetSpec):
            changes.append(PutSet(key.name, value))
        elif isinstance(key, ChainKey) and isinstance(value, ChainSpec):
            changes.append(PutChain(key.name, value, fresh=True))
        elif isinstance(key, ElementKey) and isinstance(value, str):
            changes.append(PutElement(key.set, key.key, value))
    return script(changes)


def _put_set(name: str, spec: SetSpec) -> str:
    flags = f" {spec.flags};" if spec.flags else ""
    return f"add {spec.kind} {TABLE} {name} {{ type {spec.type};{flags} }}"


def _declare(change: PutChain) -> str:
    hook = f" {{ type {change.spec.hook}; policy accept; }}" if change.spec.hook else ""
    return f"add chain {TABLE} {change.name}{hook}"


def _elements(changes: Sequence[Change]) -> list[str]:
    lines: list[str] = []
    run: list[str] = []
    current: tuple[str, str] = ("", "")

    def close() -> None:
        if run:
            lines.append(f"{current[0]} element {TABLE} {current[1]} {{ {', '.join(run)} }}")
            run.clear()

    def add(verb: str, name: str, text: str) -> None:
        nonlocal current
        if current != (verb, name):
            close()
            current = (verb, name)
        run.append(text)

    for change in changes:
        match change:
            case PutElement():
                if change.replaces is not None:
                    add("delete", change.set, _element(change.key, change.replaces))
                add("add", change.set, _element(change.key, change.data))
            case DropElement():
                add("delete", change.set, _element(change.key, change.data))
            case _:
                pass
    close()
    return lines


def _element(key: str, data: str) -> str:
    return f"{key} : {data}" if data else key


def chunks(changes: Sequence[Change], limit: int = ELEMENTS_MAX) -> list[Sequence[Change]]:
    """Split a large plan into transactions. The first has all structure and all that closes; what opens comes after.

    Any number of them leaves open at most what is open in the end.
    """
    if len(changes) <= limit:
        return [changes]
    tail = [change for change in changes if isinstance(change, DropSet | DropChain)]
    rest = [change for change in changes if not _closes(change) and not isinstance(change, DropSet | DropChain)]
    parts: list[Sequence[Change]] = [rest[start : start + limit] for start in range(0, len(rest), limit)]
    parts.insert(0, [change for change in changes if _closes(change)])
    parts[-1] = [*parts[-1], *tail]
    return parts


def _closes(change: Change) -> bool:
    match change:
        case PutSet() | PutChain():
            return True
        case PutElement():
            return change.set in VERDICT_SETS
        case DropElement():
            return change.set not in VERDICT_SETS
        case _:
            return False


def _fill(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


class Nft:
    """Runs scripts, one at a time. ``is_own`` tells the notifications of recent runs from foreign ones."""

    def __init__(self, program: str = "nft") -> None:
        self._program = program
        self._pids: deque[int] = deque(maxlen=RECENT_RUNS)
        self._running = asyncio.Lock()
        self._elements = Netlink(NETLINK_NETFILTER)

    async def is_own(self, process: int) -> bool:
        """Whether ``process`` was one of ours. Waits for a run under way, whose number may not be known yet."""
        async with self._running:
            return process in self._pids or process == self._elements.port

    async def run_elements(self, parts: list[Part]) -> None:
        """One transaction encoded by ``elements``. Raises ``Rejected``; ``NetlinkUncertain`` if nobody answered."""
        async with self._running:
            try:
                self._elements.batch(parts, "change elements")
            except NetlinkUncertain:
                raise
            except NetlinkError as err:
                raise Rejected(str(err)) from err

    def close(self) -> None:
        self._elements.close()

    async def run(self, text: str) -> None:
        """One transaction. Raises ``Rejected`` with nft's words, ``Retryable`` if nft cannot run."""
        await self._call(["-f", "-"], text)

    async def read_stamp(self) -> str | None:
        """The stamp in the kernel; empty if the table has none, None if there is no table."""
        try:
            output = await self._call(["-j", "list", "set", *TABLE.split(), STAMP_SET], "")
        except Rejected:
            return None
        for entry in json.loads(output).get("nftables", []):
            for element in entry.get("set", {}).get("elem", []):
                if isinstance(element, dict):
                    return str(element.get("elem", {}).get("comment", ""))
        return ""

    async def read_counters(self) -> dict[str, int]:
        """Packets per named counter."""
        output = await self._call(["-j", "list", "counters", "table", *TABLE.split()], "")
        found = (entry["counter"] for entry in json.loads(output).get("nftables", []) if "counter" in entry)
        return {str(counter["name"]): int(counter["packets"]) for counter in found}

    async def _call(self, arguments: list[str], text: str) -> str:
        async with self._running:
            return await self._spawn(arguments, text)

    async def _spawn(self, arguments: list[str], text: str) -> str:
        # A file in memory, not a pipe: whole at once, and nothing to write to if nft dies early.
        source = os.memfd_create("nft", os.MFD_CLOEXEC)
        try:
            _fill(source, text.encode())
            os.lseek(source, 0, os.SEEK_SET)
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                self._program, *arguments, stdin=source, stdout=pipe, stderr=pipe
            )
        except OSError as err:
            raise Retryable(f"cannot run {self._program}: {err.strerror}") from err
        finally:
            os.close(source)
        self._pids.append(process.pid)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, errors = await process.communicate()
        except TimeoutError as err:
            raise Retryable(f"nft did not finish in {TIMEOUT_S} s") from err
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            raise Rejected(errors.decode(errors="replace").strip()[:500] or f"nft exited with {process.returncode}")
        return output.decode()

"""Programs unbound over its control socket (unbound-control(8), protocol version 1), without a subprocess.

Records are wanted by owner name; what differs from what was last sent is removed and added in one go. A resolver
that was restarted has lost all of it: its socket is another inode then, and everything is sent again.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from common.errors import Retryable
from common.logs import logger
from nsx_agent.model import RecordKey

log = logger("dns")
TIMEOUT_S: Final = 5.0
GREETING: Final = b"UBCT1 "
END: Final = b"\x04\n"

Records = tuple[str, ...]


class Unbound:
    """Keeps the resolver's local data equal to what is wanted."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._wanted: dict[RecordKey, Records] = {}
        self._sent: dict[RecordKey, Records] = {}
        self._dirty: set[RecordKey] = set()
        self._instance: tuple[int, int] | None = None
        self._said = ""

    def want(self, records: Mapping[RecordKey, Records | None]) -> None:
        """Change what is wanted; None withdraws a name."""
        for key, value in records.items():
            if value is None:
                self._wanted.pop(key, None)
            else:
                self._wanted[key] = value
            self._dirty.add(key)

    @property
    def behind(self) -> bool:
        """Whether there is something to send, or the resolver is another one than before."""
        return bool(self._dirty) or self._instance != self._look()

    async def sync(self) -> None:
        """Send what differs. A resolver that is away is no error: it gets everything when it is back."""
        instance = self._look()
        if instance is None:
            self._instance = None
            return
        if instance != self._instance:
            self._sent.clear()
            self._dirty = set(self._wanted)
        if not self._dirty:
            return
        keys = sorted(key for key in self._dirty if self._wanted.get(key) != self._sent.get(key))
        try:
            await self._program(keys)
        except (OSError, TimeoutError, Retryable) as err:
            self._instance = None
            if str(err) != self._said:
                self._said = str(err)
                log.warning("cannot program the resolver; will retry", reason=self._said)
            return
        self._said = ""
        for key in keys:
            if key in self._wanted:
                self._sent[key] = self._wanted[key]
            else:
                self._sent.pop(key, None)
        self._dirty.clear()
        self._instance = instance

    async def _program(self, keys: list[RecordKey]) -> None:
        stale = [key for key in keys if key in self._sent]
        if stale:
            await self._call("local_datas_remove", (key.name for key in stale))
        for key in stale:
            if key.redirect:
                await self._call(f"local_zone_remove {key.name}")
        wanted = [key for key in keys if key in self._wanted]
        for key in wanted:
            if key.redirect:  # only in such a zone does unbound follow a CNAME of local data
                await self._call(f"local_zone {key.name} redirect")
        lines = [f"{key.name} {record}" for key in wanted for record in self._wanted[key]]
        if lines:
            await self._call("local_datas", lines)

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self._socket.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns

    async def _call(self, command: str, lines: Iterable[str] = ()) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(str(self._socket))
            try:
                writer.write(GREETING + command.encode() + b"\n")
                body = "".join(f"{line}\n" for line in lines)
                if body:
                    writer.write(body.encode() + END)
                await writer.drain()
                answer = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
        if answer.startswith("error"):
            raise Retryable(f"unbound: {command.split()[0]}: {answer.strip()[:200]}")

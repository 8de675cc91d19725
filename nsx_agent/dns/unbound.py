"""Programs unbound over its control socket (unbound-control(8), protocol version 1), without a subprocess.

Records are wanted by owner name; what differs from what the resolver has is removed and added in one go. What it has
is asked for when it is another one than before (its socket is another inode then), so a restarted agent finds what its
earlier self left, and a restarted resolver gets everything.

A CNAME is followed only in a redirect zone of its own. Until unbound 1.20.1 (NLnetLabs/unbound#1059) a zone that is
added at run time has no parent, and names that sort after it are not found any more. A zone adopts parentless ones
below itself when it is added; so for a new redirect zone all zones are taken away and added from the bottom up. That
leaves two moments, of a message each, in which names are unknown.
"""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from common.errors import Retryable
from common.logs import logger
from nsx_agent.model import RecordKey

log = logger("dns")
TIMEOUT_S: Final = 2.0
REST_S: Final = 10.0
"""A resolver that does not answer is left alone for so long: everything else waits for the end of a call."""
GREETING: Final = b"UBCT1 "
END: Final = b"\x04\n"
OURS: Final = frozenset({"A", "CNAME", "PTR", "SRV"})
BUILTIN: Final = frozenset({"localhost.", "1.0.0.127.in-addr.arpa."})
"""Names that unbound answers by itself."""
ROOT: Final = "."

Records = tuple[str, ...]


class Unbound:
    """Keeps the resolver's local data equal to what is wanted."""

    def __init__(self, socket: Path, domain: str) -> None:
        self._socket = socket
        self._domain = f"{domain}."
        self._wanted: dict[RecordKey, Records] = {}
        self._sent: dict[RecordKey, Records] = {}
        self._dirty: set[RecordKey] = set()
        self._instance: tuple[int, int] | None = None
        self._said = ""
        self._silent: tuple[int, int] | None = None
        self._resting_until = 0.0

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
        if instance == self._silent and asyncio.get_running_loop().time() < self._resting_until:
            return
        keys: list[RecordKey] = []
        try:
            if instance != self._instance:
                await self._adopt()
                self._dirty = self._wanted.keys() | self._sent.keys()
            keys = sorted(key for key in self._dirty if self._wanted.get(key) != self._sent.get(key))
            if any(key.redirect and key not in self._sent for key in keys):
                await self._rebuild()
                keys = sorted(self._wanted.keys() | self._sent.keys())
            elif keys:
                await self._program(keys)
        except (OSError, TimeoutError, Retryable) as err:
            self._instance = None
            silent = isinstance(err, TimeoutError)
            if silent:
                self._silent = instance
                self._resting_until = asyncio.get_running_loop().time() + REST_S
            said = f"no answer in {TIMEOUT_S} s" if silent else str(err)
            if said != self._said:
                self._said = said
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
        """Legal when no new redirect zone is wanted. A name that only gains records is known all the time."""
        held = {key: set(self._sent.get(key, ())) for key in keys}
        stale = [key for key in keys if not held[key] <= set(self._wanted.get(key, ()))]
        if stale:
            await self._call("local_datas_remove", (key.name for key in stale))
        gone = [key.name for key in stale if key.redirect and key not in self._wanted]
        if gone:
            await self._call("local_zones_remove", gone)
        for key in stale:
            held[key].clear()
        lines = [f"{key.name} {one}" for key in keys for one in self._wanted.get(key, ()) if one not in held[key]]
        if lines:
            await self._call("local_datas", lines)

    async def _adopt(self) -> None:
        """Learn what the resolver has."""
        redirects = {name for name, kind in (await self._zones()).items() if kind == "redirect"}
        found: dict[RecordKey, list[str]] = {}
        for line in await self._data():
            name, *record = line.split()
            if len(record) > 3 and record[2] in OURS and name not in BUILTIN and not name.endswith("ip6.arpa."):
                found.setdefault(RecordKey(name, name in redirects), []).append(" ".join(record))
        self._sent = {key: tuple(sorted(records)) for key, records in found.items()}

    async def _zones(self) -> dict[str, str]:
        """Type of each zone."""
        lines = (await self._call("list_local_zones")).splitlines()
        return {words[0]: words[1] for line in lines if len(words := line.split()) == 2}

    async def _data(self) -> list[str]:
        return [line for line in (await self._call("list_local_data")).splitlines() if line.strip()]

    async def _rebuild(self) -> None:
        """Everything anew, with all the redirect zones that are wanted. See the module."""
        zones = await self._zones()
        apex = [line for line in await self._data() if line.split()[0] == self._domain]
        below = [name for name in zones if name.endswith(f".{self._domain}")]
        above = [name for name in (self._domain, ROOT) if name in zones]
        strays = [key.name for key in self._sent if not key.name.endswith(f".{self._domain}")]
        if strays:
            await self._call("local_datas_remove", strays)
        await self._call("local_zones_remove", [*below, *above])
        redirects = [f"{key.name} redirect" for key in sorted(self._wanted) if key.redirect]
        await self._call("local_zones", [*redirects, *(f"{name} {zones[name]}" for name in above)])
        lines = [f"{key.name} {record}" for key in sorted(self._wanted) for record in self._wanted[key]]
        await self._call("local_datas", [*apex, *lines])

    def _look(self) -> tuple[int, int] | None:
        try:
            seen = self._socket.stat()
        except OSError:
            return None
        return seen.st_ino, seen.st_mtime_ns

    async def _call(self, command: str, lines: Iterable[str] = ()) -> str:
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
        return answer

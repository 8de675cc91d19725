"""What is in force where: manifests that were planned, watermarks that came back. No IO, no clock.

Each scope has a history of manifests, numbered. A pass over etcd revision P covers every change up to P, so a change of
revision C is in force on a host once the host confirmed the newest manifest of each scope it concerns that is not
younger than the first pass at or after C. Later changes never delay (or hide) an earlier one.

Only live hosts count: a dead one leaves every span, and what it confirmed before is void when it comes back.
"""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from common.messages import Failure, Manifest, Scope, Watermark

HISTORY_MAX: Final = 512


@dataclass(frozen=True, slots=True)
class Lag:
    """A host that has not confirmed what it should."""

    host: str
    scope: Scope
    revision: int
    """What it confirmed last; 0 for nothing."""
    needed: int

    def __str__(self) -> str:
        have = f"at revision {self.revision}" if self.revision else "has confirmed nothing yet"
        return f"{self.host} {have}, needs {self.needed} of {self.scope.path}"


@dataclass(slots=True)
class _History:
    """Manifests of one scope; ``base`` is the number of the first one kept. Numbers start at 1."""

    manifests: list[Manifest] = field(default_factory=list)
    revisions: list[int] = field(default_factory=list)
    base: int = 1

    @property
    def last(self) -> int:
        return self.base + len(self.manifests) - 1

    def add(self, manifest: Manifest) -> None:
        self.manifests.append(manifest)
        self.revisions.append(manifest.revision)
        if len(self.manifests) > HISTORY_MAX:
            cut = HISTORY_MAX // 2
            del self.manifests[:cut], self.revisions[:cut]
            self.base += cut

    def needed(self, pass_revision: int) -> int:
        """Number of the newest manifest of a pass up to ``pass_revision``; 0 when there was none."""
        forgotten = self.base if self.base > 1 else 0
        return max(forgotten, self.base + bisect_right(self.revisions, pass_revision) - 1)

    def number_of(self, watermark: Watermark) -> int:
        """Number of the newest manifest whose content the watermark confirms."""
        for index in range(len(self.manifests) - 1, -1, -1):
            if self.manifests[index].digest == watermark.digest and self.revisions[index] <= watermark.revision:
                return self.base + index
        if not self.revisions or watermark.revision > self.revisions[-1]:
            return 0
        return self.base + bisect_left(self.revisions, watermark.revision) - 1

    def get(self, number: int) -> Manifest | None:
        index = number - self.base
        return self.manifests[index] if 0 <= index < len(self.manifests) else None


class Realization:
    """Answers whether, and where not, a change is in force. ``span`` names the live hosts that must hold a scope."""

    def __init__(self, epoch: str, span: Callable[[Scope], frozenset[str]]) -> None:
        self.epoch = epoch
        self._span = span
        self._passes: list[int] = []
        self._histories: dict[Scope, _History] = {}
        self._watermarks: dict[tuple[str, Scope], Watermark] = {}
        self._numbers: dict[tuple[str, Scope], int] = {}
        self._news = asyncio.Event()

    # Input

    def note_pass(self, revision: int, manifests: Mapping[Scope, Manifest], closed: Iterable[Scope] = ()) -> None:
        """A pass covered everything up to ``revision`` and left these scopes with new manifests."""
        if not self._passes or revision > self._passes[-1]:
            self._passes.append(revision)
        if len(self._passes) > HISTORY_MAX * 4:
            del self._passes[: HISTORY_MAX * 2]
        for scope, manifest in manifests.items():
            history = self._histories.get(scope)
            if history is not None:
                history.add(manifest)
                continue
            self._histories[scope] = history = _History()
            history.add(manifest)
            for host, _ in [key for key in self._watermarks if key[1] == scope]:
                self._renumber(host, scope)
        for scope in closed:
            self._histories.pop(scope, None)
            for key in [key for key in self._numbers if key[1] == scope]:
                del self._numbers[key]
        self._tell()

    def confirm(self, host: str, scope: Scope, watermark: Watermark | None) -> Manifest | None:
        """A host reported (None: took its report back). Returns the manifest it confirms for the first time."""
        key = (host, scope)
        if watermark is None:
            self._watermarks.pop(key, None)
            self._numbers.pop(key, None)
            self._tell()
            return None
        known = self._watermarks.get(key)
        if watermark.epoch != self.epoch or (known is not None and known.revision > watermark.revision):
            return None
        self._watermarks[key] = watermark
        before = self._numbers.get(key, 0)
        after = self._renumber(host, scope)
        self._tell()
        history = self._histories.get(scope)
        return history.get(after) if history is not None and after > before else None

    def forget_host(self, host: str) -> None:
        """Void all that ``host`` confirmed: it may have lost its state."""
        for key in [key for key in self._watermarks if key[0] == host]:
            del self._watermarks[key]
            self._numbers.pop(key, None)
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # Questions

    def reached(self, scopes: Iterable[Scope] | None, revision: int) -> bool:
        """Whether every live host that holds one of ``scopes`` (None: all scopes) has realized ``revision``."""
        return next(self._behind(scopes, revision), None) is None and self.covered(revision)

    def behind(self, scopes: Iterable[Scope] | None, revision: int) -> tuple[Lag, ...]:
        """Hosts that keep ``reached`` from being true."""
        return tuple(self._behind(scopes, revision))

    def covered(self, revision: int) -> bool:
        """Whether a pass has covered ``revision``; until then nobody can have realized it."""
        return bool(self._passes) and self._passes[-1] >= revision

    def host_reached(self, host: str, scope: Scope, revision: int) -> bool:
        """Whether one host, live or not, has realized ``revision`` in ``scope``."""
        return self.covered(revision) and self._number(host, scope) >= max(1, self._needed(scope, revision))

    def lag(self, host: str, scope: Scope, revision: int) -> Lag | None:
        """How far one host, live or not, is from having realized ``revision`` in ``scope``; None if it has."""
        return None if self.host_reached(host, scope, revision) else self._lag(host, scope, revision)

    def latest(self, scope: Scope) -> int:
        """Number of the scope's newest manifest, a token for ``all_confirmed``."""
        history = self._histories.get(scope)
        return 0 if history is None else history.last

    def all_confirmed(self, scope: Scope, number: int) -> bool:
        """Whether every live host that holds ``scope`` has realized manifest ``number`` or a later one."""
        return all(self._number(host, scope) >= number for host in self._span(scope))

    def failures(self, host: str, scope: Scope) -> tuple[Failure, ...]:
        found = self._watermarks.get((host, scope))
        return () if found is None else found.failures

    async def wait_reached(self, scopes: Iterable[Scope] | None, revision: int, timeout_s: float) -> bool:
        """Wait for ``reached``, at most ``timeout_s``. Returns what it is then."""
        listed = None if scopes is None else tuple(scopes)
        try:
            async with asyncio.timeout(timeout_s):
                while not self.reached(listed, revision):
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def hosts_behind(self) -> set[str]:
        """Live hosts that have not confirmed the newest manifest of some scope they hold."""
        found: set[str] = set()
        for scope, history in self._histories.items():
            found.update(host for host in self._span(scope) if self._number(host, scope) < history.last)
        return found

    def _behind(self, scopes: Iterable[Scope] | None, revision: int) -> Iterator[Lag]:
        for scope in self._histories if scopes is None else scopes:
            history = self._histories.get(scope)
            if history is None:
                continue
            needed = self._needed(scope, revision)
            for host in sorted(self._span(scope)):
                if self._number(host, scope) < needed:
                    yield self._lag(host, scope, revision)

    def _lag(self, host: str, scope: Scope, revision: int) -> Lag:
        known = self._watermarks.get((host, scope))
        history = self._histories.get(scope)
        wanted = None if history is None else history.get(self._needed(scope, revision))
        return Lag(host, scope, known.revision if known else 0, wanted.revision if wanted else revision)

    def _needed(self, scope: Scope, revision: int) -> int:
        history = self._histories.get(scope)
        if history is None or not self._passes:
            return 0
        index = min(bisect_left(self._passes, revision), len(self._passes) - 1)
        return history.needed(self._passes[index])

    def _number(self, host: str, scope: Scope) -> int:
        return self._numbers.get((host, scope), 0)

    def _renumber(self, host: str, scope: Scope) -> int:
        history = self._histories.get(scope)
        found = 0 if history is None else history.number_of(self._watermarks[(host, scope)])
        number = self._numbers[(host, scope)] = max(found, self._number(host, scope))
        return number

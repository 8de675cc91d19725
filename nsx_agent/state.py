"""The last complete intent on disk, root-only: enforced at start before the broker is reached, replayed to adopt.

A snapshot and a journal of commits after it. Each commit has a number, which the kernel's table carries as its
stamp: a restarted agent replays up to that number and so knows exactly what the kernel holds, without listing it.
Files: ``snapshot`` (replaced atomically) and ``journal-<number of the snapshot>``. A torn last record, as a power
cut leaves, is dropped; the kernel's table is gone then as well.
"""

import contextlib
import errno
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack

from common.errors import ConfigError, Retryable, Terminal
from common.logs import logger
from common.messages import Manifest, decode, encode

log = logger("state")
FORMAT: Final = 1
JOURNAL_BYTES_MIN: Final = 1 << 20
"""A journal smaller than this, or than the snapshot, is not worth compacting."""


@dataclass(frozen=True, slots=True)
class ScopeCommit:
    """What one commit did to one scope. ``changes``: item key -> payload, None for gone."""

    manifest: Manifest
    changes: Mapping[str, bytes | None]


@dataclass(frozen=True, slots=True)
class Commit:
    """One numbered step. ``forgotten`` are scope paths that are no longer held."""

    number: int
    scopes: Mapping[str, ScopeCommit]
    forgotten: tuple[str, ...] = ()


@dataclass(slots=True)
class Snapshot:
    """Everything at commit ``number``. ``slots`` is the balancer's slot order, which depends on history."""

    number: int = 0
    incarnation: str = ""
    manifests: dict[str, Manifest] = field(default_factory=dict)
    items: dict[str, dict[str, bytes]] = field(default_factory=dict)
    slots: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)


class StateDir:
    """Reads and writes the files. One process at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal: int | None = None
        self._journal_bytes = 0
        self._behind = False
        """Commits are missing in the journal: nothing may follow them, until there is a new snapshot."""
        self._snapshot_bytes = 0
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.chmod(0o700)
        except OSError as err:
            raise ConfigError(f"state_dir {path}: {err.strerror}; give a directory that root can write") from err

    def load(self, incarnation: str) -> tuple[Snapshot, list[Commit]]:
        """Snapshot and later commits; empty with the new ``incarnation`` when there is nothing usable."""
        try:
            snapshot = self._load_snapshot() or Snapshot(incarnation=incarnation)
            commits = [_commit_of(record) for record in self._records(snapshot.number)]
        except (OSError, Terminal, LookupError, TypeError, ValueError) as err:
            log.warning("the state on disk cannot be read; beginning without it", path=str(self._path), reason=str(err))
            return Snapshot(incarnation=incarnation), []
        return snapshot, [commit for commit in commits if commit.number > snapshot.number]

    def start(self, snapshot: Snapshot) -> None:
        """Begin a new journal after ``snapshot``, which becomes the file's content. Raises ``Retryable``."""
        raw = _pack(
            {
                "format": FORMAT,
                "number": snapshot.number,
                "incarnation": snapshot.incarnation,
                "manifests": {path: encode(manifest) for path, manifest in snapshot.manifests.items()},
                "items": snapshot.items,
                "slots": {
                    key: {port: list(one) for port, one in ports.items()} for key, ports in snapshot.slots.items()
                },
            }
        )
        try:
            journal = self._replace(snapshot.number, raw)
        except OSError as err:
            self._behind = True
            raise Retryable(f"state_dir {self._path}: {err.strerror}; it needs {len(raw)} bytes") from err
        self.close()
        self._journal, self._behind = journal, False
        self._journal_bytes, self._snapshot_bytes = 0, len(raw)

    def _replace(self, number: int, raw: bytes) -> int:
        """Write the snapshot, then open its journal, then let both count. Returns the journal's descriptor."""
        temporary = self._path / "snapshot.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(raw)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path = self._path / f"journal-{number}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        journal = os.open(path, flags, 0o600)
        try:
            temporary.rename(self._path / "snapshot")
            for old in self._path.glob("journal-*"):
                if old != path:
                    old.unlink()
        except OSError:
            os.close(journal)
            raise
        return journal

    def append(self, commit: Commit) -> None:
        """Record a commit before it goes to the kernel. Legal after ``start``.

        Raises ``Retryable`` when the disk refuses. The kernel may go on nevertheless: its table then names a commit
        that is not on disk, by which a restarted agent sees that the disk is not to be trusted.
        """
        if self._journal is None or self._behind:
            return
        raw = _pack(
            {
                "number": commit.number,
                "scopes": {
                    path: [encode(scope.manifest), dict(scope.changes)] for path, scope in commit.scopes.items()
                },
                "forgotten": list(commit.forgotten),
            }
        )
        try:
            if os.write(self._journal, raw) < len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as err:
            self._behind = True
            raise Retryable(f"state_dir {self._path}: {err.strerror}; give it space") from err
        self._journal_bytes += len(raw)

    @property
    def wants_compaction(self) -> bool:
        return self._behind or self._journal_bytes > max(JOURNAL_BYTES_MIN, self._snapshot_bytes)

    def close(self) -> None:
        if self._journal is not None:
            os.close(self._journal)
            self._journal = None

    def _load_snapshot(self) -> Snapshot | None:
        try:
            raw = (self._path / "snapshot").read_bytes()
        except FileNotFoundError:
            return None
        for record in _unpack(raw):
            if record.get("format") != FORMAT:
                return None
            return Snapshot(
                number=record["number"],
                incarnation=record["incarnation"],
                manifests={path: decode(manifest, Manifest) for path, manifest in record["manifests"].items()},
                items=record["items"],
                slots={
                    key: {port: tuple(one) for port, one in ports.items()} for key, ports in record["slots"].items()
                },
            )
        return None

    def _records(self, number: int) -> Iterator[dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            yield from _unpack((self._path / f"journal-{number}").read_bytes())


def _commit_of(record: Mapping[str, Any]) -> Commit:
    scopes = {
        path: ScopeCommit(decode(manifest, Manifest), changes) for path, (manifest, changes) in record["scopes"].items()
    }
    return Commit(record["number"], scopes, tuple(record["forgotten"]))


def _pack(record: Mapping[str, Any]) -> bytes:
    body: bytes = msgpack.packb(record)
    return len(body).to_bytes(4, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def _unpack(raw: bytes) -> Iterator[dict[str, Any]]:
    offset = 0
    while offset + 8 <= len(raw):
        size = int.from_bytes(raw[offset : offset + 4], "big")
        body = raw[offset + 8 : offset + 8 + size]
        if len(body) < size or zlib.crc32(body) != int.from_bytes(raw[offset + 4 : offset + 8], "big"):
            return
        yield msgpack.unpackb(body, strict_map_key=False)
        offset += 8 + size

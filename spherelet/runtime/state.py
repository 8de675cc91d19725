"""What a container attempt is on disk, and how it is read back: the whole of what survives a restart.

Files of an attempt's directory, in the order in which they appear::

    container.json    ours, atomic: identity; without it the directory is half-made and is removed
    upper work rootfs termination-log config.json    the OCI bundle
    conmon.pid pid    conmon's: monitor and first process
    starting          ours: the runtime's start is about to be called
    started.json      ours: the runtime's start returned
    log attach ctl    conmon's
    exit, oom         conmon's: exit status; out of memory
    ended.json        ours: how it ended when conmon could not say
    reaped            ours: runtime state, cgroup and root file system are gone

A pid file alone proves nothing (pids are reused, hosts reboot): the monitor is ours if its command line carries the
container's id.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from spherelet.model import ContainerState, Exit

SIGKILL_STATUS = 137
START_ERROR = "StartError"
"""Reason of an end before the beginning: the runtime could not run the program. It counts as an attempt."""


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` atomically, readable by root only."""
    temporary = path.with_name(f".{path.name}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(orjson.dumps(value))
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in ``path``; None if it is missing or torn."""
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return None
    return value if isinstance(value, dict) else None


def save(state: ContainerState) -> None:
    """Write ``container.json``."""
    write_json(
        state.directory / "container.json",
        {
            "id": state.id,
            "name": state.name,
            "podUid": state.pod_uid,
            "attempt": state.attempt,
            "image": state.image,
            "imageId": state.image_id,
            "handler": state.handler,
            "createdAt": state.created_at,
            "stopSignal": state.stop_signal,
            "backoffSeconds": state.backoff_s,
            "specHash": state.spec_hash,
            "cgroup": state.cgroup,
            "netns": str(state.netns) if state.netns else None,
            "epoch": state.epoch,
            "resources": state.resources,
        },
    )


def load(directory: Path) -> ContainerState | None:
    """Read one attempt back; None if it is half-made (to be removed)."""
    saved = read_json(directory / "container.json")
    if saved is None:
        return None
    try:
        state = ContainerState(
            pod_uid=saved["podUid"],
            name=saved["name"],
            attempt=saved["attempt"],
            id=saved["id"],
            directory=directory,
            image=saved["image"],
            image_id=saved["imageId"],
            handler=saved["handler"],
            created_at=saved["createdAt"],
            stop_signal=saved["stopSignal"],
            backoff_s=saved["backoffSeconds"],
            spec_hash=saved["specHash"],
            cgroup=saved["cgroup"],
            netns=Path(saved["netns"]) if saved["netns"] else None,
            epoch=saved.get("epoch", 0),
            resources=saved.get("resources", ""),
            reaped=(directory / "reaped").exists(),
        )
    except KeyError:
        return None
    started = read_json(directory / "started.json")
    state = refresh(replace(state, started_at=float(started["startedAt"])) if started else state)
    if state.exit is not None and not state.started_at and (directory / "starting").exists():
        # It ran and ended while we were dying: it must not count as never run.
        state = replace(state, started_at=(directory / "starting").stat().st_mtime)
    return state


def refresh(state: ContainerState) -> ContainerState:
    """``state`` with pids and exit as they are now."""
    ended = read_exit(state)
    if ended is not None:
        began_at = state.created_at if ended.reason == START_ERROR else state.started_at
        return replace(state, exit=ended, pid=0, conmon_pid=0, started_at=state.started_at or began_at)
    monitor = read_pid(state.directory / "conmon.pid")
    if not monitors(monitor, state.id):
        monitor = 0
    process = read_pid(state.directory / "pid")
    if not belongs(process, state.cgroup):
        process = 0
    return replace(state, pid=process, conmon_pid=monitor)


def read_exit(state: ContainerState) -> Exit | None:
    """How the attempt ended, if it has."""
    directory = state.directory
    saved = read_json(directory / "ended.json")
    if saved is not None:
        return Exit(saved["code"], saved["finishedAt"], saved["reason"], saved.get("message", ""))
    try:
        text = (directory / "exit").read_text(encoding="ascii").strip()
        finished = (directory / "exit").stat().st_mtime
    except FileNotFoundError:
        return None
    if not text:
        return None  # conmon is writing it
    code = int(text) & 0xFF if text.lstrip("-").isdigit() else 255
    if (directory / "oom").exists() and code == SIGKILL_STATUS:
        reason = "OOMKilled"
    else:
        reason = "Completed" if code == 0 else "Error"
    return Exit(code, finished, reason)


def read_pid(path: Path) -> int:
    """The pid in a pid file, 0 if there is none."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def monitors(pid: int, container_id: str) -> bool:
    """Whether ``pid`` is the conmon of this container."""
    if pid <= 0:
        return False
    try:
        return container_id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


def mentioning(container_id: str) -> list[int]:
    """Processes whose command line carries a container's id: its monitor, and a runtime that works on it."""
    return [
        int(each.name)
        for each in Path("/proc").iterdir()
        if each.name.isdigit() and monitors(int(each.name), container_id)
    ]


def belongs(pid: int, cgroup: str) -> bool:
    """Whether ``pid`` is alive and in ``cgroup``."""
    if pid <= 0:
        return False
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(line.endswith(cgroup) for line in text.splitlines())

"""``Runtime``: containers by conmon and an OCI runtime, one directory per attempt. Holds no policy.

conmon is started once per container and outlives spherelet; its death is noticed by a pidfd. Everything here can be
repeated after a crash at any point: ``adopt`` reads the directories back.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from common.clock import Clock
from common.errors import Retryable, Terminal
from common.logs import logger
from spherelet.config import Runtime as Settings
from spherelet.model import RESIZE_ERROR, ContainerState, Exit, Image
from spherelet.runtime import cgroups, mounts, process, state
from spherelet.runtime.spec import STDIN_ONCE

CREATE_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 60.0
EARLIER_START_S = 5.0
UNKNOWN_STATUS = 137
LOG_BYTES_MAX = 10 << 20

log = logger("runtime")


class RuntimeFailed(Retryable):
    """The OCI runtime refused; the message is its own. ``reason``: ``StartError``, ``CreateContainerError``, ..."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Runtime:
    """All containers of this host, by pod uid and container name, oldest attempt first."""

    def __init__(self, settings: Settings, state_dir: Path, clock: Clock, on_exit: Callable[[str], None]) -> None:
        """``on_exit(pod_uid)`` is called on the event loop after a container has ended."""
        self._settings = settings
        self._clock = clock
        self._on_exit = on_exit
        self._runtime_root = state_dir / "runtime"
        self._states: dict[str, dict[str, list[ContainerState]]] = {}
        self._watches: dict[str, process.ExitWatch] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._env = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")}

    # --- what is there

    def container(self, pod_uid: str, name: str) -> ContainerState | None:
        """The newest attempt of a container, or None."""
        attempts = self._states.get(pod_uid, {}).get(name)
        return attempts[-1] if attempts else None

    def attempts(self, pod_uid: str) -> dict[str, tuple[ContainerState, ...]]:
        """Every attempt of every container of a pod that still has a directory."""
        return {name: tuple(states) for name, states in self._states.get(pod_uid, {}).items()}

    def running(self) -> Iterable[ContainerState]:
        """All running containers of the host."""
        return (each for pod in self._states.values() for states in pod.values() for each in states if each.running)

    def command(self, handler: str) -> list[str]:
        """Binary and global options of a runtime handler. Raises ``Terminal`` for one that is not configured."""
        binary = self.binary(handler)
        return [str(binary), f"--root={self._runtime_root / binary.name}"]

    def binary(self, handler: str) -> Path:
        """Binary of ``handler`` (empty = the default); the default falls back to any other that exists."""
        name = handler or self._settings.default
        path = self._settings.handlers.get(name)
        if path is not None and path.exists():
            return path
        if not handler or handler == self._settings.default:
            for other in self._settings.handlers.values():
                if other.exists():
                    return other
        known = ", ".join(sorted(self._settings.handlers))
        raise Terminal(f'no runtime for "{name}" is configured on this host; configured handlers: {known}')

    # --- what can be done

    async def create(self, wanted: ContainerState, image: Image, spec: dict[str, Any], *, stdin: bool) -> None:
        """Make the bundle and the container, stopped before its first instruction. Raises ``RuntimeFailed``."""
        directory = wanted.directory
        for name in ("upper", "work", "rootfs"):
            (directory / name).mkdir(mode=0o755, parents=True, exist_ok=True)
        (directory / "termination-log").touch(mode=0o666)
        (directory / "termination-log").chmod(0o666)
        state.save(wanted)
        self._put(wanted)
        try:
            if not mounts.is_mount(directory / "rootfs"):
                mounts.overlay(image.layers, directory / "upper", directory / "work", directory / "rootfs")
            (directory / "config.json").write_bytes(orjson.dumps(spec))
            flags = ["--terminal"] if spec["process"]["terminal"] else []
            flags += ["--stdin"] if stdin else []
            once = (spec.get("annotations") or {}).get(STDIN_ONCE) == "true"
            flags += ["--leave-stdin-open"] if stdin and not once else []
            pid = await self._start_monitor(wanted, flags)
        except OSError as err:
            raise RuntimeFailed("CreateContainerError", f"cannot prepare the root file system: {err}") from err
        monitor = state.read_pid(directory / "conmon.pid")
        self._put(replace(wanted, pid=pid, conmon_pid=monitor))
        self._watch(wanted.pod_uid, wanted.name, wanted.attempt)

    async def start(self, pod_uid: str, name: str) -> ContainerState:
        """Let the created container run. Raises ``RuntimeFailed`` (``StartError``)."""
        current = self._require(pod_uid, name)
        cut_short = (current.directory / "starting").exists()
        (current.directory / "starting").touch(mode=0o600)
        argv = [*self.command(current.handler), "start", current.id]
        ended = await process.run(argv, self._env, COMMAND_TIMEOUT_S)
        if ended.code != 0 and not (cut_short and await self._was_started(current)):
            (current.directory / "starting").unlink(missing_ok=True)
            raise RuntimeFailed(state.START_ERROR, _plain(ended.output))
        now = self._clock.now()
        state.write_json(current.directory / "started.json", {"startedAt": now})
        current = replace(self._require(pod_uid, name), started_at=now)
        self._put(current)
        return current

    async def resize(self, current: ContainerState, resources: str, limits: dict[str, Any]) -> None:
        """Change the OCI ``limits`` of a running container, which then has ``resources``. Raises ``RuntimeFailed``."""
        path = current.directory / "resources.json"
        state.write_json(path, limits)
        argv = [*self.command(current.handler), "update", "--resources", str(path), current.id]
        ended = await process.run(argv, self._env, COMMAND_TIMEOUT_S)
        if ended.code != 0:
            raise RuntimeFailed(RESIZE_ERROR, _plain(ended.output))
        latest = self._find(current.pod_uid, current.name, current.attempt)
        if latest is not None:
            state.save(replace(latest, resources=resources))
            self._put(replace(latest, resources=resources))

    def signal(self, current: ContainerState, number: int) -> None:
        """Send a signal to the first process of a container, if it is still that container's."""
        if state.belongs(current.pid, current.cgroup):
            with contextlib.suppress(ProcessLookupError):
                os.kill(current.pid, number)

    async def wait_ended(self, current: ContainerState, timeout_s: float) -> bool:
        """Wait until an attempt has ended. False if ``timeout_s`` passed first."""
        event = self._ended.get(current.id)
        latest = self._find(current.pod_uid, current.name, current.attempt)
        if event is None or latest is None or latest.exit is not None:
            return True
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return False
        return True

    def mark_ended(self, current: ContainerState, code: int, reason: str, message: str) -> None:
        """Record an end that conmon cannot tell (it could not start, or the monitor was lost)."""
        now = self._clock.now()
        ended = {"code": code, "finishedAt": now, "reason": reason, "message": message}
        try:
            state.write_json(current.directory / "ended.json", ended)
        except OSError as err:  # known here until the next start, which then finds it out again
            log.warning("end not written", uid=current.pod_uid, object=current.name, reason=str(err))
            latest = self._find(current.pod_uid, current.name, current.attempt) or current
            self._put(replace(latest, exit=Exit(code, now, reason, message), pid=0, conmon_pid=0))
        self._refresh(current)

    async def reap(self, current: ContainerState) -> None:
        """Free an ended attempt's runtime state, cgroup and root file system. Idempotent; its log stays."""
        self._unwatch(current.id)
        await self._delete(current)
        mounts.unmount(current.directory / "rootfs")
        cgroups.remove_pod(current.cgroup)
        for name in ("upper", "work", "rootfs"):
            await asyncio.to_thread(shutil.rmtree, current.directory / name, True)
        for name in ("config.json", "ctl", "winsz", "attach", "conmon.pid", "pid"):
            (current.directory / name).unlink(missing_ok=True)
        (current.directory / "reaped").touch(mode=0o600)
        self._put(replace(current, reaped=True, pid=0, conmon_pid=0))

    async def _delete(self, current: ContainerState) -> None:
        try:
            command, root = self.command(current.handler), self._runtime_root / self.binary(current.handler).name
        except Terminal as err:  # it cannot be asked any more; what it held is taken away without it
            log.warning("container deleted without its runtime", uid=current.pod_uid, reason=str(err))
            return
        deleted = await process.run([*command, "delete", "--force", current.id], self._env, COMMAND_TIMEOUT_S)
        if deleted.code != 0 and (root / current.id).exists():
            raise Retryable(f"cannot delete container {current.id[:12]}: {_plain(deleted.output)}")

    def forget(self, current: ContainerState) -> None:
        """Remove a reaped attempt's directory."""
        shutil.rmtree(current.directory, ignore_errors=True)
        attempts = self._states.get(current.pod_uid, {}).get(current.name, [])
        attempts[:] = [each for each in attempts if each.attempt != current.attempt]

    def forget_pod(self, pod_uid: str) -> None:
        """Forget a pod whose directory is gone."""
        for attempts in self._states.pop(pod_uid, {}).values():
            for each in attempts:
                self._unwatch(each.id)

    # --- coming back

    def adopt(self, pod_uid: str, containers: Path) -> None:
        """Read a pod's containers back from ``<pod>/containers``; half-made attempts are cleared away."""
        if not containers.is_dir():
            return
        for directory in sorted(containers.glob("*/*"), key=lambda each: (each.parent.name, int(each.name))):
            found = state.load(directory)
            if found is None:
                log.warning("half-made container removed", uid=pod_uid, object=str(directory))
                mounts.unmount(directory / "rootfs")
                shutil.rmtree(directory, ignore_errors=True)
                continue
            self._put(found)
            if found.exit is not None:
                continue
            if not found.started_at and not found.pid:
                # Cut short while it was being created: whoever still works on it would race with its removal, and
                # there is nothing to start.
                for pid in state.mentioning(found.id):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.mark_ended(found, UNKNOWN_STATUS, "ContainerStatusUnknown", "spherelet ended while it created it")
            else:
                self._watch(pod_uid, found.name, found.attempt)

    def audit(self) -> None:
        """Look at every container that is believed to live: the safety net under the pidfds."""
        for pod in list(self._states.values()):
            for attempts in list(pod.values()):
                for each in list(attempts):
                    if each.exit is None and each.pid:
                        self._check(each)

    # --- inside

    def _check(self, current: ContainerState) -> None:
        fresh = state.refresh(current)
        if fresh.exit is not None or not fresh.conmon_pid:
            self._exited(current.pod_uid, current.name, current.attempt)

    async def _was_started(self, current: ContainerState) -> bool:
        """Whether a start that our death cut short works, or has worked: it goes on without us, beside a second one."""
        deadline = self._clock.monotonic() + EARLIER_START_S
        while (status := await self._status(current)) == "created" and self._clock.monotonic() < deadline:
            await self._clock.sleep(0.05)
        return status in ("running", "paused", "stopped")  # of one that stopped, conmon says how

    async def _status(self, current: ContainerState) -> str:
        """The container's state in the words of the OCI runtime specification; empty if it knows none."""
        asked = await process.run([*self.command(current.handler), "state", current.id], self._env, COMMAND_TIMEOUT_S)
        try:
            return str(orjson.loads(asked.output)["status"]) if asked.code == 0 else ""
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return ""

    async def _start_monitor(self, wanted: ContainerState, flags: Sequence[str]) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        try:
            argv = [*self._monitor_argv(wanted), *flags]
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 3),
            ]
            parent = process.spawn(argv, {**self._env, "_OCI_SYNCPIPE": "3"}, actions, wanted.directory)
        except OSError as err:
            os.close(reader)
            raise RuntimeFailed("CreateContainerError", f"cannot run conmon: {err}") from err
        finally:
            os.close(writer)
        try:
            async with asyncio.timeout(CREATE_TIMEOUT_S):
                await process.wait(parent)
                return await self._synced(reader, wanted)
        except TimeoutError as err:
            raise RuntimeFailed("CreateContainerError", "the OCI runtime did not answer in time") from err
        finally:
            os.close(reader)

    async def _synced(self, reader: int, wanted: ContainerState) -> int:
        text = b""
        while not text.endswith(b"\n"):
            await process.readable(reader)
            chunk = process.drain(reader)
            if not chunk:
                break
            text += chunk
        try:
            answer = orjson.loads(text)
        except orjson.JSONDecodeError:
            answer = {}
        pid = int(answer.get("pid", answer.get("data", -1)))
        if pid <= 0:
            if answer.get("message"):  # the runtime's own words: the image or the pod does not fit, not this host
                raise RuntimeFailed(state.START_ERROR, _plain(str(answer["message"]).encode()))
            raise RuntimeFailed("CreateContainerError", "conmon ended before the container was created")
        return pid

    def _monitor_argv(self, wanted: ContainerState) -> list[str]:
        binary, root = self.command(wanted.handler)
        directory = wanted.directory
        argv = [str(self._settings.conmon), "--cid", wanted.id, "--cuuid", wanted.id, "--name", wanted.name]
        argv += ["--bundle", str(directory), "--persist-dir", str(directory), "--full-attach", "--no-sync-log"]
        argv += ["--container-pidfile", str(directory / "pid"), "--conmon-pidfile", str(directory / "conmon.pid")]
        argv += ["--log-path", f"k8s-file:{directory / 'log'}", "--runtime", binary, "--runtime-arg", root]
        return argv

    def _watch(self, pod_uid: str, name: str, attempt: int) -> None:
        current = self._find(pod_uid, name, attempt)
        if current is None or current.exit is not None:
            return
        self._ended.setdefault(current.id, asyncio.Event())
        try:
            self._watches[current.id] = process.ExitWatch(
                current.conmon_pid or -1, lambda: self._exited(pod_uid, name, attempt)
            )
        except (ProcessLookupError, OSError):
            self._exited(pod_uid, name, attempt)

    def _unwatch(self, container_id: str) -> None:
        watch = self._watches.pop(container_id, None)
        if watch is not None:
            watch.close()
        event = self._ended.pop(container_id, None)
        if event is not None:
            event.set()

    def _exited(self, pod_uid: str, name: str, attempt: int) -> None:
        current = self._find(pod_uid, name, attempt)
        if current is None or current.exit is not None:
            return
        if state.read_exit(current) is None:
            # The monitor is gone without a word: what it watched has lost its log and cannot be watched any more.
            self.signal(state.refresh(current), signal.SIGKILL)
            text = "the container's monitor was lost (host restarted, or conmon was killed)"
            self.mark_ended(current, UNKNOWN_STATUS, "ContainerStatusUnknown", text)
        else:
            self._refresh(current)

    def _refresh(self, current: ContainerState) -> None:
        latest = self._find(current.pod_uid, current.name, current.attempt) or current
        self._put(latest if latest.exit is not None else state.refresh(latest))
        self._unwatch(current.id)
        self._on_exit(current.pod_uid)

    def _require(self, pod_uid: str, name: str) -> ContainerState:
        current = self.container(pod_uid, name)
        if current is None:
            raise Retryable(f"container {name} is gone")
        return current

    def _find(self, pod_uid: str, name: str, attempt: int) -> ContainerState | None:
        attempts = self._states.get(pod_uid, {}).get(name, ())
        return next((each for each in attempts if each.attempt == attempt), None)

    def _put(self, value: ContainerState) -> None:
        attempts = self._states.setdefault(value.pod_uid, {}).setdefault(value.name, [])
        for index, each in enumerate(attempts):
            if each.attempt == value.attempt:
                attempts[index] = value
                return
        attempts.append(value)


def _plain(output: bytes) -> str:
    """A runtime's error as one line a user can read."""
    text = output.decode("utf-8", "replace").strip()
    return " ".join(text.split()) or "the OCI runtime failed without a message"

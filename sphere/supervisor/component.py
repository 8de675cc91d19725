"""One supervised process: how it is started, and when it may be started again."""

import os
import signal

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
STABLE_AFTER_S = 5.0
"""A process that lived this long is restarted at once; one that did not backs off, doubling."""
LOG_BYTES_MAX = 16 << 20
LISTEN_FD = 3
"""First inherited socket, as in systemd's socket activation."""

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)


class Component:
    """``wanted`` is what the operator asked for; ``pid`` is what runs (0: nothing)."""

    __slots__ = (
        "argv",
        "backoff_s",
        "cwd",
        "environ",
        "exit_status",
        "listen",
        "log",
        "name",
        "pid",
        "restarts",
        "retry_at",
        "started_at",
        "wanted",
    )

    def __init__(self, spec: dict, log_dir: str) -> None:  # type: ignore[type-arg]
        self.name: str = spec["name"]
        self.argv: list[str] = spec["argv"]
        self.environ: dict[str, str] = spec.get("env", {})
        self.cwd: str = spec.get("cwd", "/")
        self.listen: bool = spec.get("listen", False)
        self.log = f"{log_dir}/{self.name}.log"
        self.wanted = True
        self.pid = 0
        self.restarts = 0
        self.exit_status: int | None = None
        self.started_at = 0.0
        self.retry_at = 0.0
        self.backoff_s = 0.0

    def start(self, now: float, sockets: list[int]) -> None:
        """Fork and execute. Never raises: a failure to execute is an exit with status 127 and a line in the log."""
        self.started_at = now
        # Until the child has reset them, a signal would run the supervisor's own handler in it, and be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
        pid = os.fork()
        if pid == 0:
            try:
                self._execute(sockets if self.listen else [])
            except BaseException as err:
                os.write(2, f"cannot start {self.argv[0]}: {err}\n".encode())
            finally:
                os._exit(127)
        self.pid = pid
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)

    def _execute(self, sockets: list[int]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        environ = {**os.environ, **self.environ}
        # Lifted out of the way first: a source may sit where a target goes.
        lifted = [os.dup(fd) for fd in sockets]
        for index, fd in enumerate(lifted):
            os.dup2(fd, LISTEN_FD + index, inheritable=True)
        if sockets:
            environ |= {"LISTEN_FDS": str(len(sockets)), "LISTEN_PID": str(os.getpid())}
        os.closerange(LISTEN_FD + len(sockets), 1024)
        os.chdir(self.cwd)
        os.execvpe(self.argv[0], self.argv, environ)

    def exited(self, status: int, now: float) -> None:
        """Record the end of the process and decide when it may come back."""
        self.pid = 0
        self.exit_status = status
        if not self.wanted:
            return
        if now - self.started_at >= STABLE_AFTER_S:
            self.backoff_s = 0.0
        self.retry_at = now + self.backoff_s
        self.backoff_s = min(max(self.backoff_s * 2, BACKOFF_FIRST_S), BACKOFF_MAX_S)
        self.restarts += 1

    def signal(self, number: int) -> None:
        """Send a signal to the process itself; what it started (containers) is not touched."""
        if self.pid:
            os.kill(self.pid, number)

    def bound_log(self) -> None:
        """Keep one old generation. The process holds the file open for appending, so the file is copied and cut."""
        try:
            if os.stat(self.log).st_size < LOG_BYTES_MAX:
                return
            with open(self.log, "rb+") as source, open(self.log + ".1", "wb") as old:
                while chunk := source.read(1 << 20):
                    old.write(chunk)
                source.truncate(0)
        except OSError:
            return  # a full disk must not stop supervision

    def status(self, now: float) -> dict[str, object]:
        """What the control socket tells of it."""
        return {
            "name": self.name,
            "pid": self.pid,
            "wanted": self.wanted,
            "restarts": self.restarts,
            "exit_status": self.exit_status,
            "uptime_s": round(now - self.started_at, 1) if self.pid else 0.0,
        }

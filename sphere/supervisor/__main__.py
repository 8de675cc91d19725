"""The supervisor's loop. Usage: ``python -E -s -S -m sphere.supervisor SPEC CONTROL_FD [LISTENING_FD...]``.

SPEC is a JSON file: ``{"log_dir", "components": [{"name", "argv", "env", "cwd", "listen"}]}``. Components start in
that order and stop in reverse. CONTROL_FD is a listening unix socket that takes one JSON object a connection:
``{"op": "status"}``, ``{"op": "start"|"stop"|"kill"|"remove", "component": NAME}`` or
``{"op": "add", "spec": COMPONENT}``.
"""

import json
import os
import resource
import select
import signal
import socket
import sys
import time

from sphere.supervisor.component import Component

STOP_GRACE_S = 8.0
LOG_CHECK_S = 15.0
REQUEST_BYTES_MAX = 16384


class Supervisor:
    """All state of a machine's PID 1."""

    def __init__(self, spec: dict, control: socket.socket, sockets: list[int]) -> None:  # type: ignore[type-arg]
        self.sockets = sockets
        self.log_dir: str = spec["log_dir"]
        self.components = [Component(one, self.log_dir) for one in spec["components"]]
        self.leaving: list[Component] = []
        """Removed, and still to end."""
        self.stopping = False
        self.stop_deadline = 0.0
        self.control = control
        self.control.setblocking(False)
        self.wake, waker = socket.socketpair()
        self.wake.setblocking(False)
        waker.setblocking(False)
        self.waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != signal.SIGCHLD and not self.stopping:
            self.stopping = True
            self.stop_deadline = time.monotonic() + STOP_GRACE_S

    def run(self) -> None:
        """Until every component is stopped after SIGTERM."""
        next_log_check = 0.0
        while True:
            now = time.monotonic()
            self._reap(now)
            if self.stopping:
                if not self._stop_next(now):
                    return
            else:
                self._start_due(now)
            if now >= next_log_check:
                next_log_check = now + LOG_CHECK_S
                for component in self.components:
                    component.bound_log()
            self._wait(min([next_log_check, *self._deadlines(now)]) - time.monotonic())

    def _start_due(self, now: float) -> None:
        for component in self.components:
            if component.wanted and not component.pid and component.retry_at <= now:
                component.start(now, self.sockets)

    def _stop_next(self, now: float) -> bool:
        """Stop the last component still running, then the one before it. False when none is left."""
        running = [component for component in self.components if component.pid]
        for component in self.components:
            component.wanted = component.wanted and bool(component.pid)
        if not running:
            return False
        last = running[-1]
        if last.wanted:
            last.wanted = False
            last.signal(signal.SIGTERM)
        elif now >= self.stop_deadline:
            for component in running:
                component.wanted = False
                component.signal(signal.SIGKILL)
        return True

    def _deadlines(self, now: float) -> list[float]:
        if self.stopping:
            return [max(self.stop_deadline, now + 0.1)]
        return [one.retry_at for one in self.components if one.wanted and not one.pid]

    def _wait(self, timeout_s: float) -> None:
        ready, _, _ = select.select([self.wake, self.control], [], [], max(timeout_s, 0.0))
        if self.wake in ready:
            self.wake.recv(4096)
        if self.control in ready:
            self._serve()

    def _reap(self, now: float) -> None:
        """Collect every dead child; most are orphans of components (container monitors)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self.leaving = [one for one in self.leaving if one.pid != pid]
            for component in self.components:
                if component.pid == pid:
                    component.exited(os.waitstatus_to_exitcode(status), now)

    def _serve(self) -> None:
        connection, _ = self.control.accept()
        with connection:
            connection.settimeout(1.0)
            try:
                request = json.loads(connection.recv(REQUEST_BYTES_MAX))
                reply = self._answer(request)
            except (OSError, ValueError, KeyError, TypeError) as err:
                reply = {"ok": False, "message": f"bad request: {err!r}"}
            try:
                connection.sendall(json.dumps(reply).encode() + b"\n")
            except OSError:
                return

    def _answer(self, request: dict) -> dict:  # type: ignore[type-arg]
        now = time.monotonic()
        op = request["op"]
        if op == "status":
            return {"ok": True, "components": [one.status(now) for one in self.components]}
        if op == "add":
            return self._add(request["spec"])
        found = [one for one in self.components if one.name == request["component"]]
        if not found:
            known = ", ".join(one.name for one in self.components)
            return {"ok": False, "message": f"no component {request['component']!r} here; it has: {known}"}
        component = found[0]
        if op == "start":
            component.wanted, component.retry_at, component.backoff_s = True, 0.0, 0.0
        elif op == "stop":
            component.wanted = False
            component.signal(signal.SIGTERM)
        elif op == "kill":
            component.signal(signal.SIGKILL)
        elif op == "remove":
            component.signal(signal.SIGTERM)
            self.components.remove(component)
            if component.pid:
                self.leaving.append(component)
        else:
            return {"ok": False, "message": f"unknown op {op!r}"}
        return {"ok": True, "component": component.status(now)}

    def _add(self, spec: dict) -> dict:  # type: ignore[type-arg]
        component = Component(spec, self.log_dir)
        if any(one.name == component.name for one in (*self.components, *self.leaving)):
            return {"ok": False, "message": f"there is a component {component.name!r} already"}
        self.components.append(component)
        return {"ok": True}


def main() -> None:
    """Entry point."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with open(sys.argv[1], encoding="utf-8") as file:
        spec = json.load(file)
    control = socket.socket(fileno=int(sys.argv[2]))
    control.set_inheritable(False)
    Supervisor(spec, control, [int(fd) for fd in sys.argv[3:]]).run()


if __name__ == "__main__":
    main()

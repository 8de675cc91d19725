"""The supervisor with real processes, outside of a machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sphere.layout import PROJECT

pytestmark = pytest.mark.integration

RSS_KIB_MAX = 12 * 1024


class Running:
    """A supervisor as a child process, with its control socket."""

    def __init__(
        self, directory: Path, components: list[dict[str, Any]], sockets: tuple[socket.socket, ...] = ()
    ) -> None:
        self.directory = directory
        spec = {"log_dir": str(directory), "components": components}
        (directory / "machine.json").write_text(json.dumps(spec))
        self.address = str(directory / "c")
        control = socket.socket(socket.AF_UNIX)
        control.bind(self.address)
        control.listen()
        fds = [control.fileno(), *(one.fileno() for one in sockets)]
        command = [sys.executable, "-E", "-s", "-S", "-m", "sphere.supervisor", str(directory / "machine.json")]
        self.process = subprocess.Popen([*command, *map(str, fds)], cwd=PROJECT, pass_fds=fds)
        control.close()

    def ask(self, op: str, component: str = "", **more: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(self.address)
            connection.sendall(json.dumps({"op": op, "component": component, **more}).encode())
            reply: dict[str, Any] = json.loads(connection.recv(65536))
            return reply

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = next(one for one in self.ask("status")["components"] if one["name"] == name)
        return found

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a supervisor with the given components."""
    started: list[Running] = []

    def start(*components: dict[str, Any], sockets: tuple[socket.socket, ...] = ()) -> Running:
        started.append(Running(tmp_path, list(components), sockets))
        return started[-1]

    yield start
    for one in started:
        one.process.terminate()
        one.process.wait(timeout=20)


def _shell(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "argv": ["sh", "-c", script], **more}


def _until(condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
    return value


def test_a_killed_process_is_back_at_once(supervise: Callable[..., Running]) -> None:
    running = supervise(_shell("a", "exec sleep 1000"))
    first = _until(lambda: running.state("a")["pid"])
    os.kill(first, signal.SIGKILL)
    _until(lambda: running.state("a")["pid"] not in (0, first), timeout_s=1.0)
    assert running.state("a")["restarts"] == 1
    assert running.state("a")["exit_status"] == -signal.SIGKILL


def test_a_crashing_process_is_slowed_down_and_its_words_are_kept(supervise: Callable[..., Running]) -> None:
    running = supervise(_shell("a", "echo no good; exit 3"))
    _until(lambda: running.state("a")["restarts"] >= 3)
    _until(lambda: running.state("a")["restarts"] >= 4)
    assert running.state("a")["exit_status"] == 3
    assert "no good" in running.log("a")
    assert running.state("a")["restarts"] < 10


def test_stopped_stays_stopped_until_started(supervise: Callable[..., Running]) -> None:
    running = supervise(_shell("a", "exec sleep 1000"), _shell("b", "exec sleep 1000"))
    _until(lambda: running.state("a")["pid"] and running.state("b")["pid"])
    assert running.ask("stop", "a")["ok"]
    _until(lambda: not running.state("a")["pid"])
    assert running.state("a")["wanted"] is False
    assert running.state("b")["pid"]
    assert running.ask("start", "a")["ok"]
    _until(lambda: running.state("a")["pid"])


def test_components_come_and_go_while_others_run(supervise: Callable[..., Running]) -> None:
    running = supervise(_shell("a", "exec sleep 1000"))
    first = _until(lambda: running.state("a")["pid"])
    assert running.ask("add", spec=_shell("b", "exec sleep 1000"))["ok"]
    assert not running.ask("add", spec=_shell("b", "exec sleep 1000"))["ok"]
    second = _until(lambda: running.state("b")["pid"])
    assert running.ask("remove", "b")["ok"]
    _until(lambda: not Path(f"/proc/{second}").exists())
    assert [one["name"] for one in running.ask("status")["components"]] == ["a"]
    assert running.state("a")["pid"] == first
    assert running.ask("add", spec=_shell("b", "exec sleep 1000"))["ok"]


def test_what_cannot_be_executed_says_so(supervise: Callable[..., Running]) -> None:
    running = supervise({"name": "a", "argv": ["/does/not/exist"]})
    _until(lambda: "cannot start /does/not/exist" in running.log("a"))
    _until(lambda: running.state("a")["exit_status"] == 127)


@pytest.mark.parametrize("request_", [b"", b"junk", b"[]", b'{"op": "explode"}', b'{"op": "stop", "component": "x"}'])
def test_bad_requests_are_answered(supervise: Callable[..., Running], request_: bytes) -> None:
    running = supervise(_shell("a", "exec sleep 1000"))
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(running.address)
        connection.sendall(request_)
        connection.shutdown(socket.SHUT_WR)
        assert json.loads(connection.recv(65536))["ok"] is False
    assert running.ask("status")["ok"]


def test_stops_in_reverse_order(supervise: Callable[..., Running], tmp_path: Path) -> None:
    order = tmp_path / "order"
    script = f"trap 'echo $0 >> {order}; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    names = ("first", "second", "third")
    running = supervise(*({"name": name, "argv": ["sh", "-c", script, name]} for name in names))
    _until(lambda: all("up" in running.log(name) for name in names))
    running.process.terminate()
    assert running.process.wait(timeout=10) == 0
    assert order.read_text().split() == ["third", "second", "first"]


def test_sockets_are_handed_on_and_outlive_their_user(supervise: Callable[..., Running]) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    script = (
        "import os, socket; assert os.environ['LISTEN_PID'] == str(os.getpid()); \n"
        "assert os.environ['LISTEN_FDS'] == '1'\n"
        "s = socket.socket(fileno=3)\n"
        "while True:\n c, _ = s.accept(); c.sendall(str(os.getpid()).encode()); c.close()"
    )
    running = supervise({"name": "a", "argv": [sys.executable, "-S", "-c", script], "listen": True}, sockets=(server,))
    address = server.getsockname()
    server.close()

    def answer() -> int:
        with socket.create_connection(address, 5) as connection:
            return int(connection.recv(100))

    first = answer()
    os.kill(first, signal.SIGKILL)
    # What a dying process has accepted is lost; what comes later waits for the next one.
    _until(lambda: not Path(f"/proc/{first}").exists())
    assert answer() != first
    running.ask("status")


def test_memory_is_small(supervise: Callable[..., Running]) -> None:
    running = supervise(*(_shell(f"c{number}", "exec sleep 1000") for number in range(4)))
    _until(lambda: running.state("c3")["pid"])
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    rss = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    assert rss < RSS_KIB_MAX

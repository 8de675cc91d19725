"""Exec, attach and port-forward over SPDY, as kubectl before 1.31 asks for them, against real containers."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spherelet import execution
from spherelet.model import ContainerState
from spherelet.server.portforward import VERSION
from spherelet.server.remotecommand import V4
from tests.support.oci_container import container, crun
from tests.support.spherelet_server import OnePod, serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
EXEC = "/exec/shop/web/main"
BUFFERED_BYTES_MAX = 64 << 20
"""More than all buffers of a connection hold, the kernel's too."""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerState]:
    with container(tmp_path_factory.mktemp("shell"), ["sh", "-c", "exec sleep 1000"]) as state:
        yield state


async def test_exec_gives_outputs_and_exit_code(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        path = f"{EXEC}?command=sh&command=-c&command=echo+$GREETING;echo+bad+>%262;exit+7&stdout=1&stderr=1"
        async with client.spdy(path) as session:
            error, out, err = [await session.open(kind) for kind in ("error", "stdout", "stderr")]
            await session.until_ended(error, out, err)
            assert (session.data[out], session.data[err]) == (b"hello\n", b"bad\n")
            assert session.status(error)["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}


async def test_half_closed_stdin_ends_the_commands_input(tmp_path: Path, shell: ContainerState) -> None:
    text = os.urandom(1 << 20)
    async with (
        serving(tmp_path, OnePod(shell, {})) as client,
        client.spdy(f"{EXEC}?command=cat&stdin=1&stdout=1") as session,
    ):
        error, stdin, out = [await session.open(kind) for kind in ("error", "stdin", "stdout")]
        async with asyncio.TaskGroup() as group:
            group.create_task(session.write(stdin, text, end=True))
            await session.until_ended(error, out)
        assert session.data[out] == text
        assert session.status(error)["status"] == "Success"


async def test_terminal_follows_the_clients_size(tmp_path: Path, shell: ContainerState) -> None:
    async with (
        serving(tmp_path, OnePod(shell, {})) as client,
        client.spdy(f"{EXEC}?command=sh&stdin=1&stdout=1&tty=1") as session,
    ):
        kinds = ("error", "stdin", "stdout", "resize")
        error, stdin, out, resize = [await session.open(kind) for kind in kinds]
        size = json.dumps({"Width": 101, "Height": 31}).encode() + b"\n"
        await session.write(resize, size[:5])
        await session.write(resize, size[5:])
        await session.write(stdin, b"stty size; exit 3\n")
        await session.until_ended(error, out)
        assert b"31 101" in session.data[out]
        assert session.status(error)["details"]["causes"][0]["message"] == "3"


async def test_command_ends_when_the_client_leaves(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        path = f"{EXEC}?command=sleep&command=54322&stdout=1"
        async with client.spdy(path) as session:
            await session.open("error")
            await session.open("stdout")
            await _until_running(shell, "54322", running=True)
        await _until_running(shell, "54322", running=False)


async def _until_running(state: ContainerState, text: str, *, running: bool) -> None:
    command = crun(state.directory.parent / "crun")
    async with asyncio.timeout(10):
        while (text in (await execution.run(command, state, ["busybox", "ps"]))[1]) is not running:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_input_that_nobody_reads_stops_the_client(tmp_path: Path, shell: ContainerState) -> None:
    sent = 0
    async with (
        serving(tmp_path, OnePod(shell, {})) as client,
        client.spdy(f"{EXEC}?command=sleep&command=1000&stdin=1") as session,
    ):
        await session.open("error")
        stdin = await session.open("stdin")
        with contextlib.suppress(TimeoutError):
            while sent < BUFFERED_BYTES_MAX:
                async with asyncio.timeout(1):
                    await session.write(stdin, bytes(32 << 10))
                sent += 32 << 10
    assert sent < BUFFERED_BYTES_MAX, "the server takes all and keeps it"


async def test_attach_carries_both_ways(tmp_path: Path) -> None:
    script = "while read line; do echo got $line; echo bad $line >&2; done; echo over"
    with container(tmp_path / "c", ["sh", "-c", script], stdin=True) as state:
        async with (
            serving(tmp_path, OnePod(state, {"stdin": True, "stdinOnce": True})) as client,
            client.spdy("/attach/shop/web/main?stdin=1&stdout=1&stderr=1") as session,
        ):
            kinds = ("error", "stdin", "stdout", "stderr")
            error, stdin, out, err = [await session.open(kind) for kind in kinds]
            await session.write(stdin, b"this\n", end=True)
            await session.until_ended(error, out, err)
            assert (session.data[out], session.data[err]) == (b"got this\nover\n", b"bad this\n")


async def test_refusals_come_before_the_upgrade(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        for path, protocol, status, text in (
            (f"{EXEC}?command=true", "v9.channel.k8s.io", 403, V4),
            (EXEC, V4, 400, "at least 1 command"),
            ("/exec/shop/web/none?command=true", V4, 404, "container none is not valid for pod web"),
            ("/portForward/shop/other", VERSION, 404, "not on this host"),
        ):
            answer = await client.ask_spdy(path, protocol)
            assert answer.connection is None
            assert (answer.status, text in answer.body.decode()) == (status, True), path


@pytest.fixture
def netns() -> Iterator[Path]:
    """A network namespace with loopback up, pinned as spherelet does."""
    name = f"tspdy{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield Path("/run/netns") / name
    subprocess.run(["ip", "netns", "del", name], check=True)


async def test_port_forward_keeps_connections_apart(tmp_path: Path, netns: Path) -> None:
    with container(tmp_path / "c", ["nc", "-ll", "-p", "8080", "-e", "cat"], netns=netns) as state:
        await _until_listening(state, 8080)
        async with (
            serving(tmp_path, OnePod(state, {}, netns)) as client,
            client.spdy("/portForward/shop/web", VERSION) as session,
        ):

            async def connect(request: int, port: int) -> tuple[int, int]:
                words = {"port": str(port), "requestID": str(request)}
                return await session.open("error", **words), await session.open("data", **words)

            (_, one), (_, two) = await connect(0, 8080), await connect(1, 8080)
            refused, nothing = await connect(2, 9)
            await session.write(two, b"second")
            await session.write(one, b"first", end=True)
            await session.write(two, b" too", end=True)
            await session.until_ended(one, two, refused, nothing)
            assert (session.data[one], session.data[two]) == (b"first", b"second too")
            assert session.data[refused].startswith(b"error forwarding port 9 to pod web")
            odd = await session.open("data", port="none", requestID="3")
            await session.until_ended(odd)
            assert odd in session.reset


async def _until_listening(state: ContainerState, port: int) -> None:
    async with asyncio.timeout(10):
        while f":{port:04X} " not in "".join(  # noqa: ASYNC110
            Path(f"/proc/{state.pid}/net/{name}").read_text()  # noqa: ASYNC240
            for name in ("tcp", "tcp6")
        ):
            await asyncio.sleep(0.01)

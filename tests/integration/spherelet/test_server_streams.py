"""The server's streams against real containers."""

import asyncio
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spherelet import execution
from spherelet.model import ContainerState
from spherelet.server import spdy
from spherelet.server.remotecommand import V1, V1_BASE64, V4, V5
from spherelet.server.rotation import rotate
from tests.support.oci_container import container, crun
from tests.support.spherelet_server import OnePod, serving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerState]:
    with container(tmp_path_factory.mktemp("shell"), ["sh", "-c", "echo started; exec sleep 1000"]) as state:
        yield state


async def test_exec_gives_output_streams_and_exit_code(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        path = (
            "/exec/shop/web/main?command=sh&command=-c&command=echo+$GREETING;echo+bad+>%262;exit+7&stdout=1&stderr=1"
        )
        for protocol in (V5, V4):
            output, status = await client.command(path, protocol=protocol)
            assert output == {1: b"hello\n", 2: b"bad\n"}
            assert status["reason"] == "NonZeroExitCode"
            assert status["details"] == {"causes": [{"reason": "ExitCode", "message": "7"}]}


async def test_exec_for_clients_that_know_no_status(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        path = f"{client.base}/exec/shop/web/main?command=echo&command=remote+execution+test&stdout=1&stderr=1"
        async with client.session.ws_connect(path, protocols=(V1,)) as websocket:
            assert b"".join([message.data async for message in websocket]) == b"\1\1remote execution test\n"
        async with client.session.ws_connect(path, protocols=(V1_BASE64,)) as websocket:
            assert [message.data async for message in websocket] == ["1", "1cmVtb3RlIGV4ZWN1dGlvbiB0ZXN0Cg=="]
        path = f"{client.base}/exec/shop/web/main?command=false&stdout=1"
        async with client.session.ws_connect(path, protocols=(V1,)) as websocket:
            said = [message.data async for message in websocket]
        assert said[0] == b"\1"
        assert said[1].startswith(b"\3command terminated with non-zero exit code")


async def test_exec_stdin_ends_when_the_client_closes_it(tmp_path: Path, shell: ContainerState) -> None:
    text = os.urandom(300_000).hex().encode()
    async with serving(tmp_path, OnePod(shell, {})) as client:
        output, status = await client.command("/exec/shop/web/main?command=cat&stdin=1&stdout=1", stdin=text)
    assert output[1] == text
    assert status == {"metadata": {}, "status": "Success"}


async def test_exec_terminal_has_the_clients_size(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        path = f"{client.base}/exec/shop/web/main?command=sh&stdin=1&stdout=1&tty=1"
        async with client.session.ws_connect(path, protocols=(V5,)) as websocket:
            await websocket.send_bytes(b"\4" + json.dumps({"Width": 101, "Height": 31}).encode())
            await websocket.send_bytes(b"\0stty size; exit 3\n")
            seen, status = b"", {}
            async for message in websocket:
                if message.data[0] == 3:
                    status = json.loads(message.data[1:])
                seen += message.data[1:]
    assert b"31 101" in seen
    assert status["details"]["causes"][0]["message"] == "3"


async def test_exec_of_a_missing_command_says_so(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        for tty in ("", "&tty=1"):
            output, status = await client.command(f"/exec/shop/web/main?command=nosuch&stdout=1&stderr=1{tty}")
            assert status["status"] == "Failure"
            assert b"nosuch" in b"".join(output.values()) + json.dumps(status).encode()


async def test_probe_command_is_killed_at_its_timeout(shell: ContainerState, tmp_path: Path) -> None:
    command = crun(shell.directory.parent / "crun")
    assert await execution.run(command, shell, ["sh", "-c", "echo fine; exit 4"]) == (4, "fine\n")
    with pytest.raises(TimeoutError):
        await execution.run(command, shell, ["sleep", "54321"], timeout_s=0.3)
    _, processes = await execution.run(command, shell, ["busybox", "ps"])
    assert "54321" not in processes


async def test_logs_follow_until_the_container_ends(tmp_path: Path) -> None:
    script = "for i in $(seq 5); do echo line $i; done; cat; echo over >&2"
    with container(tmp_path / "c", ["sh", "-c", script], stdin=True) as state:
        async with serving(tmp_path, OnePod(state, {"stdin": True, "stdinOnce": True})) as client:
            logs = f"{client.base}/containerLogs/shop/web/main"
            await _until_logged(state, b"line 5")
            async with client.session.get(f"{logs}?tailLines=2") as response:
                assert await response.read() == b"line 4\nline 5\n"
            async with client.session.get(f"{logs}?limitBytes=9&timestamps=false") as response:
                assert await response.read() == b"line 1\nli"
            async with client.session.get(f"{logs}?follow=true&tailLines=1") as response:
                assert await response.content.readline() == b"line 5\n"
                attach = f"{client.base}/attach/shop/web/main?stdin=1&stdout=1&stderr=1"
                async with client.session.ws_connect(attach, protocols=(V5,)) as websocket:
                    await websocket.send_bytes(b"\0typed\n")
                    assert await response.content.readline() == b"typed\n"
                    await websocket.send_bytes(b"\xff\0")
                    seen = [message.data async for message in websocket]
                    assert b"\1typed\n" in seen
                    assert b"\2over\n" in seen
                assert await response.read() == b"over\n"


async def test_an_input_that_stays_open_lets_go_of_a_client_whose_own_has_ended(tmp_path: Path) -> None:
    with container(tmp_path / "c", ["sh", "-c", "cat; echo over"], stdin=True) as state:
        async with serving(tmp_path, OnePod(state, {"stdin": True})) as client:
            attach = f"{client.base}/attach/shop/web/main?stdin=1&stdout=1"
            async with asyncio.timeout(10), client.session.ws_connect(attach, protocols=(V5,)) as websocket:
                await websocket.send_bytes(b"\0typed\n")
                await _until_logged(state, b"typed")
                await websocket.send_bytes(b"\xff\0")
                assert b"\1over\n" not in [message.data async for message in websocket]


async def test_follow_survives_rotation(tmp_path: Path) -> None:
    script = "echo first; while read line; do echo $line; done"
    with container(tmp_path / "c", ["sh", "-c", script], stdin=True) as state:
        async with serving(tmp_path, OnePod(state, {"stdin": True})) as client:
            await _until_logged(state, b"first")
            logs = f"{client.base}/containerLogs/shop/web/main?follow=true"
            attach = f"{client.base}/attach/shop/web/main?stdin=1"
            async with (
                client.session.get(logs) as response,
                client.session.ws_connect(attach, protocols=(V5,)) as websocket,
            ):
                assert await response.content.readline() == b"first\n"
                assert rotate(state, bytes_max=1)
                await websocket.send_bytes(b"\0second\n")
                assert await response.content.readline() == b"second\n"
        assert (state.directory / "log.1").exists()


async def _until_logged(state: ContainerState, text: bytes) -> None:
    async with asyncio.timeout(10):
        while not state.log_path.exists() or text not in state.log_path.read_bytes():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def netns(tmp_path: Path) -> Iterator[Path]:
    """A network namespace with loopback up, pinned as spherelet does."""
    name = f"tserver{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield Path("/run/netns") / name
    subprocess.run(["ip", "netns", "del", name], check=True)


async def test_port_forward_for_kubectl_and_for_channel_clients(tmp_path: Path, netns: Path) -> None:
    with container(tmp_path / "c", ["nc", "-ll", "-p", "8080", "-e", "cat"], netns=netns) as state:
        async with serving(tmp_path, OnePod(state, {}, netns)) as client:
            path = f"{client.base}/portForward/shop/web"
            await _until_listening(state, 8080)
            async with client.session.ws_connect(path, protocols=("SPDY/3.1+portforward.k8s.io",)) as websocket:
                peer = spdy.Connection()
                for stream, kind in ((1, "error"), (3, "data")):
                    headers = {"streamType": kind, "port": "8080", "requestID": "0"}
                    await websocket.send_bytes(peer.open(stream, headers))
                await websocket.send_bytes(spdy.data(3, b"ping") + spdy.data(3, b"", end=True))
                received = b""
                async with asyncio.timeout(10):
                    while True:
                        message = await websocket.receive()
                        events = [each for each in peer.receive(message.data) if isinstance(each, spdy.Data)]
                        received += b"".join(each.payload for each in events if each.stream == 3)
                        if any(each.stream == 3 and each.ended for each in events):
                            break
                assert received == b"ping"
            async with client.session.ws_connect(f"{path}?ports=8080", protocols=(V4,)) as websocket:
                assert await websocket.receive_bytes() == b"\0" + struct.pack("<H", 8080)
                assert await websocket.receive_bytes() == b"\1" + struct.pack("<H", 8080)
                await websocket.send_bytes(b"\0pong")
                assert await websocket.receive_bytes() == b"\0pong"
            async with client.session.ws_connect(f"{path}?ports=9", protocols=(V4,)) as websocket:
                await websocket.receive_bytes()
                await websocket.receive_bytes()
                said = await websocket.receive_bytes()
                assert said.startswith(b"\1error forwarding port 9")
                assert b"Connection refused" in said


async def _until_listening(state: ContainerState, port: int) -> None:
    async with asyncio.timeout(10):
        while f":{port:04X} " not in "".join(  # noqa: ASYNC110
            Path(f"/proc/{state.pid}/net/{name}").read_text()  # noqa: ASYNC240
            for name in ("tcp", "tcp6")
        ):
            await asyncio.sleep(0.01)


async def test_only_the_controller_may_use_streams(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {}), identity="prometheus") as client:
        async with client.session.get(f"{client.base}/containerLogs/shop/web/main") as response:
            assert response.status == 403
        async with client.session.get(f"{client.base}/metrics") as response:
            assert response.status == 200
        async with client.session.get(f"{client.base}/stats/summary") as response:
            assert (await response.json())["node"]["memory"]["workingSetBytes"] > 0


async def test_bad_requests_name_their_cause(tmp_path: Path, shell: ContainerState) -> None:
    async with serving(tmp_path, OnePod(shell, {})) as client:
        for path, code, text in (
            ("/containerLogs/shop/web/main?tailLines=x", 400, "tailLines"),
            ("/containerLogs/shop/web/main?previous=true", 400, "previous terminated container"),
            ("/containerLogs/shop/web/none", 404, "container none is not valid for pod web"),
            ("/containerLogs/shop/other/main", 404, "not on this host"),
            ("/exec/shop/web/main?stdout=1", 400, "at least 1 command"),
            ("/exec/shop/web/main?command=sh", 400, "subprotocol"),
        ):
            async with client.session.get(client.base + path) as response:
                assert (response.status, text in await response.text()) == (code, True), path

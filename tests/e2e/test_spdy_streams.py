"""Streams between kubectl and a container over SPDY/3.1, which is all that kubectl before 1.31 speaks.

A newer kubectl is told to by its environment, so that these tests hold with any.
"""

import hashlib
import os
import re
import select
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import container, pod, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
SPDY_ONLY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
MIB = 1 << 20
DEADLINE_S = 60


@pytest.fixture
def spdy(kubectl: Kubectl) -> Kubectl:
    """kubectl in the test's namespace, over SPDY."""
    kubectl.kubectl.environ.update(SPDY_ONLY)
    return kubectl


def ready(kubectl: Kubectl, name: str) -> None:
    kubectl("wait", "--for=condition=Ready", "--timeout=30s", f"pod/{name}")


def start(kubectl: Kubectl, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """kubectl in the background."""
    command = ["kubectl", "-n", kubectl.namespace, *arguments]
    return subprocess.Popen(command, env=kubectl.kubectl.environ, stdout=subprocess.PIPE, **options)


def through(kubectl: Kubectl, data: bytes, *command: str) -> bytes:
    """What ``command`` in pod ``p`` makes of ``data``."""
    with start(kubectl, "exec", "-i", "p", "--", *command, stdin=subprocess.PIPE) as process:
        output, _ = process.communicate(data, timeout=DEADLINE_S)
    assert process.returncode == 0
    return output


def test_exec_over_spdy(spdy: Kubectl) -> None:
    spdy.apply(pod("p", container("one"), container("two")))
    ready(spdy, "p")
    spoken = spdy.attempt("-v=8", "exec", "p", "-c", "one", "--", "true")
    assert "X-Stream-Protocol-Version: v4.channel.k8s.io" in spoken.stderr, "this was not SPDY"
    both = spdy.attempt("exec", "p", "-c", "two", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (both.stdout, both.returncode) == ("out\n", 7)
    assert both.stderr.splitlines() == ["err", "command terminated with exit code 7"]
    assert "nope" in spdy.attempt("exec", "p", "-c", "one", "--", "nope").stderr
    assert "container nope is not valid for pod p" in spdy.attempt("exec", "p", "-c", "nope", "--", "ls").stderr
    assert 'pods "nope" not found' in spdy.attempt("exec", "nope", "--", "ls").stderr


def test_input_and_output_arrive_whole_over_spdy(spdy: Kubectl) -> None:
    spdy.apply(pod("p"))
    ready(spdy, "p")
    data = os.urandom(MIB)
    assert through(spdy, data, "cat") == data
    zeros = through(spdy, b"", "head", "-c", str(64 * MIB), "/dev/zero")
    assert len(zeros) == 64 * MIB


def test_terminal_over_spdy(spdy: Kubectl) -> None:
    spdy.apply(pod("p"))
    ready(spdy, "p")
    ours, theirs = os.openpty()
    subprocess.run(["stty", "rows", "33", "cols", "111"], stdin=theirs, check=True)
    script = "until stty size | grep 33; do sleep 0.1; done; exit 4"
    command = ["kubectl", "-n", spdy.namespace, "exec", "-it", "p", "--", "sh", "-c", script]
    with subprocess.Popen(command, env=spdy.kubectl.environ, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        assert process.wait(DEADLINE_S) == 4
    seen = b""
    while select.select([ours], [], [], 0)[0]:
        seen += os.read(ours, 4096)
    os.close(ours)
    os.close(theirs)
    assert b"33 111" in seen


def test_attach_over_spdy(spdy: Kubectl) -> None:
    script = "while read line; do echo got $line; done; echo over"
    spdy.apply(pod("p", shell(script, stdin=True, stdinOnce=True), restartPolicy="Never"))
    ready(spdy, "p")
    with start(spdy, "attach", "-i", "p", stdin=subprocess.PIPE) as process:
        output, _ = process.communicate(b"one\ntwo\n", timeout=DEADLINE_S)
    assert output == b"got one\ngot two\nover\n"


def test_copy_over_spdy(spdy: Kubectl, tmp_path: Path) -> None:
    spdy.apply(pod("p"))
    ready(spdy, "p")
    (tmp_path / "there").write_bytes(os.urandom(MIB))
    spdy("cp", str(tmp_path / "there"), f"{spdy.namespace}/p:/copied")
    spdy("cp", f"{spdy.namespace}/p:/copied", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "there").read_bytes()


@contextmanager
def forwarded(kubectl: Kubectl, *arguments: str) -> Iterator[int]:
    """A local port that ``kubectl port-forward`` serves."""
    with start(kubectl, "port-forward", *arguments, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().decode()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, line
            yield int(found[1])
        finally:
            process.kill()


def test_port_forward_over_spdy(spdy: Kubectl) -> None:
    script = "mkdir /w; head -c 5000000 /dev/urandom > /w/big; exec httpd -f -p 8080 -h /w"
    spdy.apply(pod("p", shell(script, readinessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1})))
    ready(spdy, "p")
    digest = spdy("exec", "p", "--", "md5sum", "/w/big").split()[0]

    def fetch(port: int) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/big", timeout=30) as answer:
            return hashlib.md5(answer.read()).hexdigest()

    with forwarded(spdy, "pod/p", ":8080") as port, ThreadPoolExecutor(6) as pool:
        assert set(pool.map(fetch, [port] * 6)) == {digest}
        assert fetch(port) == digest


@pytest.mark.parametrize("options", [SPDY_ONLY, {}], ids=["spdy", "default"])
def test_entering_a_pod_takes_the_right_to_create_it(kubectl: Kubectl, options: dict[str, str]) -> None:
    kubectl.kubectl.environ.update(options)
    kubectl.apply(pod("p"))
    for verb in ("create", "get"):
        kubectl("create", "role", verb, f"--verb={verb}", "--resource=pods/exec")
        kubectl("create", "rolebinding", verb, f"--role={verb}", f"--user={verb}r")
    kubectl("create", "role", "look", "--verb=get", "--resource=pods")
    kubectl("create", "rolebinding", "look", "--role=look", "--user=creater", "--user=getr")
    ready(kubectl, "p")
    assert kubectl("--as=creater", "exec", "p", "--", "echo", "in") == "in\n"
    refused = kubectl.attempt("--as=getr", "exec", "p", "--", "echo", "in")
    assert refused.returncode == 1
    assert 'cannot create resource "pods/exec"' in refused.stderr

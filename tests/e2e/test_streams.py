"""Logs, exec, attach, cp and port-forward: what flows between a user and a container."""

import concurrent.futures
import hashlib
import os
import pty
import re
import select
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.manifests import container, deployment, pod, service, shell

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]
MIB = 1 << 20


def ready(kubectl: Kubectl, *names: str) -> None:
    kubectl("wait", "--for=condition=Ready", "--timeout=30s", *(f"pod/{name}" for name in names))


def command(cluster: Any, namespace: str, *arguments: str) -> list[str]:
    return ["kubectl", f"--kubeconfig={cluster.kubeconfig}", "-n", namespace, *arguments]


@contextmanager
def forwarded(cluster: Any, namespace: str, *arguments: str) -> Iterator[int]:
    """A local port that ``kubectl port-forward`` serves."""
    words = command(cluster, namespace, "port-forward", *arguments)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            assert found, line + process.stdout.read()
            yield int(found[1])
        finally:
            process.kill()


def fetch(port: int, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        body: bytes = answer.read()
    return body


def test_exec(kubectl: Kubectl) -> None:
    kubectl.apply(pod("p", container("one"), container("two")), deployment("d"), service("s", "d", 80, 80))
    ready(kubectl, "p")
    assert kubectl.attempt("exec", "p", "--", "sh", "-c", "exit 7").returncode == 7
    both = kubectl.attempt("exec", "p", "--", "sh", "-c", "echo out; echo err >&2; kill -9 $$")
    assert (both.stdout, both.stderr.splitlines()[-2:], both.returncode) == (
        "out\n",
        ["err", "command terminated with exit code 137"],
        137,
    )
    assert kubectl("exec", "-i", "p", "-c", "two", "--", "cat", stdin="through") == "through"
    assert kubectl("exec", "p", "-c", "two", "--", "hostname").strip() == "p"
    assert "Defaulted container" in kubectl.attempt("exec", "p", "--", "true").stderr
    kubectl("rollout", "status", "deployment/d", "--timeout=30s")
    assert kubectl("exec", "deploy/d", "--", "hostname").startswith("d-")
    assert kubectl("exec", "service/s", "--", "hostname").startswith("d-")
    assert "no-such-command" in kubectl.attempt("exec", "p", "--", "no-such-command").stderr
    assert "container nope is not valid for pod p" in kubectl.attempt("exec", "p", "-c", "nope", "--", "ls").stderr
    assert 'pods "nope" not found' in kubectl.attempt("exec", "nope", "--", "ls").stderr


def test_a_command_may_be_long(kubectl: Kubectl) -> None:
    kubectl.apply(pod("p"))
    ready(kubectl, "p")
    words = ["a" * 20_000, "b" * 20_000]
    assert kubectl("exec", "p", "--", "echo", *words).split() == words


def test_exec_on_a_terminal(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(pod("p"))
    ready(kubectl, "p")
    child, terminal = pty.fork()
    if child == 0:
        words = command(cluster, namespace, "exec", "-it", "p", "--", "sh")
        os.execvp(words[0], words)
    seen = b""

    def until(pattern: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 20
        while not re.search(pattern, seen):
            readable, _, _ = select.select([terminal], [], [], 0.2)
            if readable:
                try:
                    seen += os.read(terminal, 4096)
                except OSError:
                    break
            assert time.monotonic() < deadline, seen
        assert re.search(pattern, seen), seen

    until(rb"# ")
    os.write(terminal, b"tty; echo $((20+22))\n")
    until(rb"/dev/pts/0\r\n42\r\n")
    os.write(terminal, b"sleep 100\n")
    time.sleep(0.3)  # the interrupt must find the sleep; too early it only finds the shell, which is as good
    os.write(terminal, b"\x03")
    os.write(terminal, b"exit 5\n")
    until(rb"exit code 5")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    os.close(terminal)


def test_big_payloads_arrive_whole(kubectl: Kubectl, cluster: Any, namespace: str) -> None:
    kubectl.apply(pod("p"))
    ready(kubectl, "p")
    data = os.urandom(8 * MIB)
    words = command(cluster, namespace, "exec", "-i", "p", "--", "sh", "-c", "cat > /big; md5sum < /big")
    done = subprocess.run(words, input=data, capture_output=True, timeout=60, check=True)
    assert done.stdout.split()[0].decode() == hashlib.md5(data).hexdigest()
    words = command(cluster, namespace, "exec", "p", "--", "cat", "/big")
    assert subprocess.run(words, capture_output=True, timeout=60, check=True).stdout == data


def test_cp(kubectl: Kubectl, tmp_path: Path, namespace: str) -> None:
    kubectl.apply(pod("p"))
    ready(kubectl, "p")
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "file").write_bytes(os.urandom(MIB))
    kubectl("cp", str(tree), f"{namespace}/p:/tree")
    kubectl("cp", "p:/tree", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_bytes() == (tree / "sub" / "file").read_bytes()


def test_logs(kubectl: Kubectl, eventually: Eventually) -> None:
    numbers = "for i in 1 2 3 4 5; do echo line $i; done; echo problem >&2; trap 'exit 0' TERM; sleep 1d & wait"
    kubectl.apply(
        pod("many", shell(numbers, "a"), shell("echo from b; trap 'exit 0' TERM; sleep 1d & wait", "b")),
        pod("crashed", shell("echo run; exit 1"), restartPolicy="Always"),
    )
    ready(kubectl, "many")
    lines = [f"line {number}" for number in range(1, 6)]
    eventually(lambda: kubectl("logs", "many", "-c", "a").splitlines() == [*lines, "problem"])
    assert kubectl("logs", "many", "-c", "a", "--tail=2").splitlines() == ["line 5", "problem"]
    assert kubectl("logs", "many", "-c", "a", "--limit-bytes=6") == "line 1"
    assert kubectl("logs", "many", "-c", "a", "--since=1h").splitlines()[0] == "line 1"
    assert kubectl("logs", "many", "-c", "a", "--since-time=2100-01-01T00:00:00Z") == ""
    stamped = kubectl("logs", "many", "-c", "a", "--timestamps", "--tail=1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z problem\n", stamped), stamped
    assert sorted(kubectl("logs", "many", "--all-containers", "--prefix").splitlines()) == sorted(
        [*(f"[pod/many/a] {line}" for line in [*lines, "problem"]), "[pod/many/b] from b"]
    )
    assert "from b" in kubectl("logs", "-l", "app=many", "--all-containers", "--tail=-1")
    eventually(lambda: kubectl.attempt("logs", "crashed", "--previous").stdout == "run\n")
    assert "Defaulted container" in kubectl.attempt("logs", "many").stderr
    assert "container nope is not valid for pod many" in kubectl.attempt("logs", "many", "-c", "nope").stderr
    refused = kubectl.attempt("logs", "many", "-c", "a", "--previous").stderr
    assert 'previous terminated container "a" in pod "many" not found' in refused


def test_following_logs_ends_with_the_container(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("p", shell("for i in 1 2 3; do echo $i; sleep 0.5; done"), restartPolicy="Never"))
    eventually(lambda: kubectl.attempt("logs", "p").returncode == 0)
    assert kubectl("logs", "-f", "p").split() == ["1", "2", "3"]


def test_logs_of_a_container_that_waits_say_so(kubectl: Kubectl, eventually: Eventually) -> None:
    kubectl.apply(pod("p", container(image="docker.io/library/no-such-image:1")))
    eventually(lambda: "ImagePull" in kubectl("get", "pod", "p"))
    refused = kubectl.attempt("logs", "p").stderr
    assert 'container "c" in pod "p" is waiting to start: ' in refused


def test_attach_to_a_running_container(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    kubectl.apply(pod("p", shell("while read line; do echo got $line; done", stdin=True)))
    ready(kubectl, "p")
    words = command(cluster, namespace, "attach", "-i", "p")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attached:
        assert attached.stdin is not None
        assert attached.stdout is not None
        try:
            attached.stdin.write("one\ntwo\n")
            attached.stdin.flush()
            assert [attached.stdout.readline() for _ in range(2)] == ["got one\n", "got two\n"]
        finally:
            attached.kill()
    assert kubectl("logs", "p").splitlines() == ["got one", "got two"]


def test_who_attaches_with_a_finished_input_is_let_go_where_the_input_stays_open(kubectl: Kubectl) -> None:
    words = ("run", "p", "--image=busybox", "--image-pull-policy=IfNotPresent", "--attach", "--stdin")
    kubectl(*words, "--leave-stdin-open", "--", "sh", "-c", "read line; echo got $line; cat; echo over", stdin="one\n")
    ready(kubectl, "p")
    assert kubectl("logs", "p") == "got one\n"
    kubectl("delete", "pod", "p", "--now")
    once = ("--restart=Never", "--", "sh", "-c", "cat; echo over")
    assert "over" in kubectl(*words, *once, stdin="two\n")


WEB = "mkdir /w; head -c 5000000 /dev/urandom > /w/big; hostname > /w/name; exec httpd -f -p 8080 -h /w"


def test_port_forward_to_pod_deployment_and_service(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    probe = {"httpGet": {"path": "/name", "port": 8080}, "periodSeconds": 1}
    kubectl.apply(deployment("web", shell(WEB, readinessProbe=probe)), service("web", "web", 80, 8080))
    kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    name = kubectl("get", "pods", "-o", "jsonpath={.items[0].metadata.name}")
    digest = kubectl("exec", name, "--", "md5sum", "/w/big").split()[0]
    for target in ((f"pod/{name}", ":8080"), ("deployment/web", ":8080"), ("service/web", ":80")):
        with forwarded(cluster, namespace, *target) as port:
            assert fetch(port, "/name").decode().strip() == name
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                bodies = list(pool.map(lambda _: fetch(port, "/big"), range(4)))
            assert {hashlib.md5(body).hexdigest() for body in bodies} == {digest}


def test_port_forward_goes_on_after_a_refused_connection(cluster: Any, kubectl: Kubectl, namespace: str) -> None:
    script = "while [ ! -e /go ]; do sleep 0.1; done; mkdir /w; echo late > /w/index.html; exec httpd -f -p 8080 -h /w"
    kubectl.apply(pod("p", shell(script)))
    ready(kubectl, "p")
    with forwarded(cluster, namespace, "p", ":8080") as port:
        closed = socket.create_connection(("127.0.0.1", port), timeout=10)
        with closed:
            closed.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert closed.recv(10) == b""


def test_streams_of_missing_things_say_what_is_missing(kubectl: Kubectl) -> None:
    kubectl.apply(pod("gone", shell("exit 0"), restartPolicy="Never"), pod("nowhere", nodeSelector={"no": "such"}))
    kubectl("wait", "pod/gone", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s")
    assert "completed pod" in kubectl.attempt("exec", "gone", "--", "ls").stderr
    assert "Current status=Succeeded" in kubectl.attempt("port-forward", "gone", ":80").stderr
    assert "does not have a host assigned" in kubectl.attempt("exec", "nowhere", "--", "ls").stderr
    assert 'pods "nope" not found' in kubectl.attempt("port-forward", "pod/nope", ":80").stderr
    assert 'pods "nope" not found' in kubectl.attempt("attach", "nope").stderr

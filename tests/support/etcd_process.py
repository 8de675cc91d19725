"""A real etcd with mutual TLS, on free ports of the loopback device."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from common.settings import TlsFiles


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 that nobody listens on right now."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            item = stack.enter_context(socket.socket())
            item.bind(("127.0.0.1", 0))
            ports.append(item.getsockname()[1])
        return ports


class EtcdProcess:
    """etcd over ``folder``; may be stopped and started again."""

    def __init__(self, folder: Path, tls: TlsFiles) -> None:
        self.folder = folder
        self.tls = tls
        self.port, self._peer_port = free_ports(2)
        self.endpoint = f"https://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        peer = f"http://127.0.0.1:{self._peer_port}"
        arguments = ["etcd", "--name", "test", "--data-dir", str(self.folder / "data")]
        arguments += ["--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint]
        arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        arguments += ["--initial-cluster", f"test={peer}", "--unsafe-no-fsync"]
        arguments += ["--cert-file", str(self.tls.cert), "--key-file", str(self.tls.key)]
        arguments += ["--client-cert-auth", "--trusted-ca-file", str(self.tls.ca), "--log-level", "error"]
        with (self.folder / "etcd.log").open("ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def running_etcd(folder: Path, tls: TlsFiles) -> Iterator[EtcdProcess]:
    """etcd for the duration of a ``with``."""
    process = EtcdProcess(folder, tls)
    process.start()
    try:
        yield process
    finally:
        process.kill()

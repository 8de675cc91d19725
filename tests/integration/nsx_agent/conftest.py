"""Hosts as network namespaces on a bridge, a real broker with TLS, real agents; messages published by hand."""

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common import messages
from common.messages import Manifest, Message, Scope, Watermark, encode, item_hash, set_digest

BROKER = "172.30.0.2"
OUTSIDE = "172.30.0.250"


def sh(*argv: str, timeout_s: float = 20.0, check: bool = True, stdin: str | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, input=stdin)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


class Pki:
    """One CA; a certificate per name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self.ca = path / "ca.crt"
        self.ca.write_bytes(self._sign(self._name, self._key.public_key(), [], authority=True))

    def issue(self, name: str, organisation: str, addresses: list[str]) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        (self.path / f"{name}.crt").write_bytes(self._sign(subject, key.public_key(), addresses, authority=False))
        (self.path / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def _sign(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, addresses: list[str], *, authority: bool
    ) -> bytes:
        import ipaddress

        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if addresses:
            names = [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if authority:
            usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@dataclass
class ScopeBook:
    """What was published of one scope."""

    items: dict[str, bytes] = field(default_factory=dict)
    revision: int = 0
    changed_at: float = 0.0


class Controller:
    """Publishes desired state by hand and listens to reports."""

    def __init__(self, broker_socket: Path) -> None:
        self.books: dict[Scope, ScopeBook] = {}
        self.reports: dict[str, bytes] = {}
        self.revision = 0
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, "controller", protocol=paho.MQTTv5, transport="unix"
        )
        self._connected = threading.Event()
        self._client.on_message = self._on_message
        self._client.on_connect = lambda *_: (self._client.subscribe("sphere/v1/report/#", 1), self._connected.set())
        self._client.connect(str(broker_socket))
        self._client.loop_start()
        assert self._connected.wait(5)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        self.reports[message.topic] = message.payload

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, scope: Scope, changes: dict[str, Message | None]) -> int:
        """Publish items, then the manifest. Returns the revision."""
        self.revision += 1
        book = self.books.setdefault(scope, ScopeBook())
        for key, item in changes.items():
            payload = b"" if item is None else encode(item)
            if payload:
                book.items[key] = payload
            else:
                book.items.pop(key, None)
            self._client.publish(scope.item_topic(key), payload, 1, retain=True).wait_for_publish(5)
        book.revision, book.changed_at = self.revision, time.time()
        self.send_manifest(scope)
        return self.revision

    def raw(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, 1, retain=True).wait_for_publish(5)

    def send_manifest(self, scope: Scope) -> None:
        book = self.books[scope]
        manifest = Manifest(
            epoch="test",
            revision=book.revision,
            count=len(book.items),
            digest=set_digest(item_hash(key, payload) for key, payload in book.items.items()),
            changed_at=book.changed_at,
        )
        self._client.publish(scope.manifest_topic, encode(manifest), 1, retain=True).wait_for_publish(5)

    def watermark(self, host: str, scope: Scope) -> Watermark | None:
        payload = self.reports.get(scope.watermark_topic(host))
        return messages.decode(payload, Watermark) if payload else None

    def wait_realized(self, scope: Scope, hosts: list[str], timeout_s: float = 15.0) -> None:
        revision = self.books[scope].revision

        def reached(host: str) -> bool:
            watermark = self.watermark(host, scope)
            return watermark is not None and watermark.revision >= revision

        for host in hosts:
            wait_for(lambda host=host: reached(host), f"{host} realizes {scope.path} {revision}", timeout_s)


class Host:
    """A namespace with an agent in it."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.name = f"host-{number}"
        self.address = f"172.30.0.{10 + number}"
        self.netns = f"{world.prefix}h{number}"
        self.path = world.path / self.name
        self.path.mkdir()
        self.socket = self.path / "cni.sock"
        self.agent: subprocess.Popen[bytes] | None = None
        self.scope = Scope.host(self.name)
        world.attach(self.netns, self.address)
        world.pki.issue(self.name, "sphere:agents", [self.address])
        (self.path / "agent.toml").write_text(self._config())

    def _config(self) -> str:
        pki = self.world.pki.path
        tls = f'ca = "{pki}/ca.crt"\ncert = "{pki}/{self.name}.crt"\nkey = "{pki}/{self.name}.key"\n'
        return (
            f'host = "{self.name}"\nunderlay_address = "{self.address}"\nunderlay_device = "eth0"\n'
            f'state_dir = "{self.path}/state"\nsocket = "{self.socket}"\n'
            f'pod_cidr = "10.64.0.0/12"\nservice_cidr = "10.96.0.0/16"\n'
            f'[broker]\nhost = "{BROKER}"\nport = 8883\n[broker.tls]\n{tls}'
            f'[metrics]\nlisten = "{self.address}:10251"\n[metrics.tls]\n{tls}'
            f'[dns]\naddress = "10.96.0.10"\ncontrol_socket = "{self.path}/unbound.ctl"\ndomain = "cluster.local"\n'
        )

    def start(self) -> None:
        log = (self.path / "agent.log").open("ab")
        self.agent = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-m", "nsx_agent", "--config",
             str(self.path / "agent.toml")],
            stdout=log, stderr=log, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        log.close()
        try:
            wait_for(self.answers, f"agent of {self.name} serves its socket")
        except AssertionError as err:
            raise AssertionError(f"{err}\n{self.log()[-4000:]}") from err

    def log(self) -> str:
        return (self.path / "agent.log").read_text(errors="replace")

    def answers(self) -> bool:
        assert self.agent is not None
        assert self.agent.poll() is None, "the agent is gone"
        with contextlib.suppress(OSError, json.JSONDecodeError):
            return bool(self.ask("status")["ok"])
        return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.agent is not None:
            self.agent.send_signal(number)
            self.agent.wait(10)
            self.agent = None

    def ask(self, op: str, **fields: object) -> dict[str, object]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(self.socket))
            client.sendall(json.dumps({"op": op, **fields}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                part = client.recv(65536)
                if not part:
                    break
                answer += part
        return dict(json.loads(answer))

    def run(self, *argv: str, **options: object) -> str:
        return sh("nsenter", f"--net=/run/netns/{self.netns}", *argv, **options)  # type: ignore[arg-type]

    def monitor(self) -> Callable[[], str]:
        """Record nftables changes from now on; the result ends the recording and returns it."""
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.netns}", "nft", "monitor"], stdout=subprocess.PIPE, text=True
        )
        self.world.processes.append(process)
        time.sleep(0.2)

        def end() -> str:
            time.sleep(0.2)
            process.terminate()
            return process.communicate(timeout=5)[0]

        return end

    def nft_list(self) -> str:
        return self.run("nft", "list", "table", "inet", "nsx")


class Pod:
    """A namespace with an address; no processes of its own."""

    def __init__(self, world: "World", host: Host, namespace: str, name: str, address: str) -> None:
        self.world, self.host, self.namespace, self.name, self.address = world, host, namespace, name, address
        self.uid = hashlib.blake2b(f"{world.prefix}{namespace}/{name}".encode(), digest_size=8).hexdigest()
        self.netns = f"{world.prefix}p{address.replace('.', '-')[3:]}"
        self.mac = "02:73:" + ":".join(f"{int(octet):02x}" for octet in address.split("."))
        world.add_netns(self.netns)

    @property
    def path(self) -> str:
        return f"/run/netns/{self.netns}"

    def item(self, **more: object) -> messages.PortItem:
        return messages.PortItem(
            pod_uid=self.uid, namespace=self.namespace, name=self.name, address=self.address, mac=self.mac,
            vni=4096, **{"cleared": True, **more},  # type: ignore[arg-type]
        )  # fmt: skip

    def add(self, timeout_s: float = 15.0) -> dict[str, object]:
        return self.host.ask("add", pod_uid=self.uid, netns=self.path, ifname="eth0", timeout_s=timeout_s)

    def run(self, *argv: str, **options: object) -> str:
        return sh("nsenter", f"--net={self.path}", *argv, **options)  # type: ignore[arg-type]

    def spawn(self, *argv: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            ["nsenter", f"--net={self.path}", *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.world.processes.append(process)
        return process

    def listen(self, port: int, protocol: str = "TCP4") -> None:
        """Answer every client with this pod's name."""
        kind = "LISTEN" if protocol.startswith("TCP") else "RECVFROM"
        self.spawn(
            "socat", f"{protocol}-{kind}:{port},fork,reuseaddr", f"SYSTEM:echo {self.name}; cat >/dev/null & sleep 0.05"
        )
        if protocol.startswith("TCP"):
            wait_for(lambda: f":{port}" in self.run("ss", "-ltn"), f"{self.name} listens on {port}")
        else:
            wait_for(lambda: f":{port}" in self.run("ss", "-lun"), f"{self.name} listens on {port}")


def get(where: "Pod | Host", address: str, port: int, timeout_s: float = 1.0) -> str:
    """What a TCP server says; empty if it cannot be reached."""
    return where.run(
        "socat", "-t", "0.5", "-T", str(timeout_s), "-",
        f"TCP4:{address}:{port},connect-timeout={timeout_s}", check=False, stdin="",
    ).strip()  # fmt: skip


class World:
    """Bridge, broker, hosts, pods. ``close`` leaves nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.prefix = f"tnsx{os.getpid()}"
        self.namespaces: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.hosts: list[Host] = []
        (path / "pki").mkdir()
        self.pki = Pki(path / "pki")
        self.switch = f"{self.prefix}sw"
        self.add_netns(self.switch)
        sh("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        sh("ip", "-n", self.switch, "link", "set", "br0", "up")
        self.control = f"{self.prefix}c"
        self.attach(self.control, BROKER)
        self.outside = f"{self.prefix}o"
        self.attach(self.outside, OUTSIDE)
        self.start_broker()
        self.controller = Controller(path / "broker.sock")

    def add_netns(self, name: str) -> None:
        sh("ip", "netns", "add", name)
        self.namespaces.append(name)
        sh("ip", "-n", name, "link", "set", "lo", "up")

    def attach(self, name: str, address: str) -> None:
        self.add_netns(name)
        peer = f"v{len(self.namespaces)}"
        sh("ip", "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", peer, "netns", self.switch)
        sh("ip", "-n", self.switch, "link", "set", peer, "master", "br0", "up")
        sh("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        sh("ip", "-n", name, "link", "set", "eth0", "up")

    def start_broker(self) -> None:
        self.pki.issue("broker", "sphere", [BROKER])
        config = self.path / "mosquitto.conf"
        config.write_text(
            f"per_listener_settings true\nuser root\nlistener 8883 {BROKER}\ncafile {self.pki.ca}\n"
            f"certfile {self.pki.path}/broker.crt\nkeyfile {self.pki.path}/broker.key\nrequire_certificate true\n"
            f"use_identity_as_username true\nlistener 0 {self.path}/broker.sock\nallow_anonymous true\n"
            "set_tcp_nodelay true\nmax_queued_messages 100000\nlog_dest stdout\n"
        )
        log = (self.path / "broker.log").open("ab")
        self.broker = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.control}", "mosquitto", "-c", str(config)], stdout=log, stderr=log
        )
        log.close()
        self.processes.append(self.broker)
        wait_for((self.path / "broker.sock").exists, "broker listens")

    def add_host(self, *, start: bool = True) -> Host:
        host = Host(self, len(self.hosts) + 1)
        self.hosts.append(host)
        if start:
            host.start()
        return host

    def pod(self, host: Host, namespace: str, name: str, address: str) -> Pod:
        return Pod(self, host, namespace, name, address)

    def close(self) -> None:
        for host in self.hosts:
            host.kill()
        self.controller.close()
        for process in self.processes:
            process.kill()
            process.wait(10)
        for name in self.namespaces:
            for pid in sh("ip", "netns", "pids", name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            sh("ip", "netns", "del", name)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    path = tmp_path_factory.mktemp("nsx")
    built = World(path)
    try:
        yield built
    finally:
        built.close()
        shutil.rmtree(path, ignore_errors=True)

"""A real mosquitto with mutual TLS and dynamic security in a temporary directory, for contract tests."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.broker import initial_dynamic_security, mosquitto_conf
from common.mqtt import Broker
from common.settings import TlsFiles

MOSQUITTO = "/usr/sbin/mosquitto"


@dataclass
class Authority:
    """A throw-away CA that writes ``<name>.crt``/``.key`` into ``directory``."""

    directory: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        self._write("ca", self._name, self._key, ca=True)

    def identity(self, name: str) -> TlsFiles:
        """Certificate with CN ``name``, good as client and as server at 127.0.0.1."""
        if not (self.directory / f"{name}.crt").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            self._write(name, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key, ca=False)
        return TlsFiles(
            ca=self.directory / "ca.crt", cert=self.directory / f"{name}.crt", key=self.directory / f"{name}.key"
        )

    def _write(self, stem: str, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, ca: bool) -> None:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        (self.directory / f"{stem}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self.directory / f"{stem}.key"
        path.touch(mode=0o600)
        path.write_bytes(pem)


@dataclass
class Mosquitto:
    """A broker process that can be killed, started again and made to forget."""

    directory: Path
    port: int
    authority: Authority
    process: subprocess.Popen[bytes] | None = None

    def broker(self, name: str) -> Broker:
        return Broker(host="127.0.0.1", port=self.port, tls=self.authority.identity(name))

    async def start(self) -> None:
        dynamic_security = self.directory / "state" / "dynamic-security.json"
        if not dynamic_security.exists():
            dynamic_security.parent.mkdir(exist_ok=True)
            dynamic_security.write_text(json.dumps(initial_dynamic_security()))
        conf = self.directory / "mosquitto.conf"
        conf.write_text(
            mosquitto_conf(
                address="127.0.0.1",
                port=self.port,
                tls=self.authority.identity("broker"),
                state_dir=self.directory / "state",
                dynamic_security=dynamic_security,
                user="root" if os.getuid() == 0 else "",
            ).replace("user \n", "")
        )
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", str(conf)], stderr=log, stdout=log)  # noqa: ASYNC220
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.5):
                return
            if self.process.poll() is not None:
                break
            await asyncio.sleep(0.02)
        raise AssertionError(f"mosquitto did not start: {self.log()}")

    def kill(self, *, forget: bool = False) -> None:
        """SIGKILL. ``forget`` also removes what it persisted (retained messages, access list)."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        if forget:
            for path in (self.directory / "state").glob("*"):
                path.unlink()

    def log(self) -> str:
        return (self.directory / "log").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def running_mosquitto(directory: Path) -> AsyncIterator[Mosquitto]:
    """A started broker with its own CA; killed at the end."""
    broker = Mosquitto(directory, free_port(), Authority(directory))
    await broker.start()
    try:
        yield broker
    finally:
        broker.kill()

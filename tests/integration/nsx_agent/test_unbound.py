"""A real unbound, programmed: names, reverse names, aliases, and what is not there."""

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.unbound import unbound_conf
from nsx_agent.dns.unbound import Unbound
from nsx_agent.model import RecordKey

pytestmark = pytest.mark.integration
A, CNAME, NXDOMAIN, REFUSED = 1, 5, "rcode 3", "rcode 5"
ASK = """
import socket, sys
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(3)
asked.sendto(bytes.fromhex(sys.argv[1]), ("127.0.0.9", 53))
print(asked.recv(4096).hex())
"""


class Resolver:
    """unbound in a network namespace of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.netns = path, f"tdns{os.getpid()}"
        self.socket = path / "control.sock"
        self.process: subprocess.Popen[bytes] | None = None
        subprocess.run(["ip", "netns", "add", self.netns], check=True, timeout=10)
        subprocess.run(["ip", "-n", self.netns, "link", "set", "lo", "up"], check=True, timeout=10)

    def start(self) -> None:
        conf = self.path / "unbound.conf"
        conf.write_text(
            unbound_conf(
                dns_address="127.0.0.9",
                control_socket=self.socket,
                pid_file=self.path / "pid",
                pod_cidr="10.64.0.0/12",
                service_cidr="10.96.0.0/16",
            )
        )
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.netns}", "unbound", "-d", "-c", str(conf)], stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 10
        while self.ask("cluster.local.") == "":
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(5)
        with contextlib.suppress(FileNotFoundError):
            self.socket.unlink()

    def close(self) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "del", self.netns], check=False, timeout=10)

    def ask(self, name: str, kind: int = A) -> str:
        """``rcode N``, or the number of answers."""
        labels = b"".join(bytes([len(one)]) + one.encode() for one in name.rstrip(".").split("."))
        query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)
        argv = ["nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-c", ASK, query.hex()]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
        if done.returncode:
            return ""
        answer = bytes.fromhex(done.stdout)
        _, flags, _, answers, _, _ = struct.unpack_from(">6H", answer)
        return f"rcode {flags & 15}" if flags & 15 else f"{answers}"


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[Resolver]:
    found = Resolver(tmp_path)
    try:
        found.start()
        yield found
    finally:
        found.close()


def a(name: str) -> tuple[RecordKey, tuple[str, ...]]:
    return RecordKey(f"{name}.svc.cluster.local.", False), ("5 IN A 10.96.0.7",)


def alias(name: str, target: str) -> tuple[RecordKey, tuple[str, ...]]:
    return RecordKey(f"{name}.svc.cluster.local.", True), (f"5 IN CNAME {target}",)


async def test_aliases_hide_no_other_name(resolver: Resolver) -> None:
    agent = Unbound(resolver.socket, "cluster.local")
    agent.want(dict([a("web.red"), a("web.zoo")]))
    await agent.sync()
    assert (resolver.ask("web.red.svc.cluster.local"), resolver.ask("nosuch.zoo.svc.cluster.local")) == ("1", NXDOMAIN)
    for index, name in enumerate(("ext.red", "ext.blue", "ext.sea")):
        agent.want(dict([alias(name, "web.zoo.svc.cluster.local."), a(f"more-{index}.tan")]))
        await agent.sync()
        assert not agent.behind
        assert resolver.ask(f"{name}.svc.cluster.local", CNAME) == "1"
        assert resolver.ask(f"more-{index}.tan.svc.cluster.local") == "1"
        for other in ("web.red", "web.zoo"):
            assert resolver.ask(f"{other}.svc.cluster.local") == "1"
        for nothing in ("nosuch.red", "nosuch.zoo", "a.a", "zz.zz"):
            assert resolver.ask(f"{nothing}.svc.cluster.local") == NXDOMAIN, (name, nothing)
        assert resolver.ask("example.com") == resolver.ask("printer.local") == REFUSED
    agent.want({alias("ext.red", "")[0]: None, alias("ext.sea", "")[0]: ("5 IN CNAME web.red.svc.cluster.local.",)})
    await agent.sync()
    assert resolver.ask("ext.red.svc.cluster.local") == NXDOMAIN
    assert resolver.ask("ext.sea.svc.cluster.local", CNAME) == "1"
    assert resolver.ask("ext.blue.svc.cluster.local", CNAME) == "1"


async def test_a_new_agent_finds_what_the_old_one_left(resolver: Resolver) -> None:
    old = Unbound(resolver.socket, "cluster.local")
    reverse = RecordKey("7.0.96.10.in-addr.arpa.", False)
    records = dict([a("web.red"), a("old.red"), alias("ext.red", "web.red.svc.cluster.local.")])
    old.want({**records, reverse: ("5 IN PTR web.red.svc.cluster.local.",)})
    await old.sync()
    new = Unbound(resolver.socket, "cluster.local")
    new.want(dict([a("web.red"), alias("ext.red", "web.red.svc.cluster.local.")]))
    await new.sync()
    assert not new.behind
    assert resolver.ask("web.red.svc.cluster.local") == "1"
    assert resolver.ask("ext.red.svc.cluster.local", CNAME) == "1"
    assert resolver.ask("old.red.svc.cluster.local") == NXDOMAIN
    assert resolver.ask("7.0.96.10.in-addr.arpa", 12) == NXDOMAIN


async def test_a_new_resolver_gets_everything(resolver: Resolver) -> None:
    agent = Unbound(resolver.socket, "cluster.local")
    agent.want(dict([a("web.red"), alias("ext.red", "web.red.svc.cluster.local.")]))
    await agent.sync()
    resolver.stop()
    await agent.sync()
    await asyncio.to_thread(resolver.start)
    assert agent.behind
    await agent.sync()
    assert resolver.ask("ext.red.svc.cluster.local", CNAME) == "1"
    assert resolver.ask("nosuch.zoo.svc.cluster.local") == NXDOMAIN

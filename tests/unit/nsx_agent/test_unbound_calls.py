"""What is said to the resolver, and that a silent one does not hold up everything else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nsx_agent.dns import unbound
from nsx_agent.dns.unbound import Unbound
from nsx_agent.model import RecordKey

PEERS = RecordKey("peers.shop.svc.cluster.local.", False)
ONE, TWO = "5 IN A 10.64.0.1", "5 IN A 10.64.0.2"


class Resolver:
    """A control socket that takes down each command with its lines."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.silent = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        words = (await reader.readline()).decode().removeprefix("UBCT1 ").split()
        body = b"" if words[0].startswith("list_") else await reader.readuntil(b"\x04\n")
        self.calls.append(" ".join((*words, *body.decode().removesuffix("\x04\n").split("\n"))).strip())
        while self.silent:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        writer.close()


@pytest.fixture
async def resolver(tmp_path: Path) -> AsyncIterator[Resolver]:
    built = Resolver()
    server = await asyncio.start_unix_server(built.serve, tmp_path / "s")
    yield built
    built.silent = False
    server.close()


async def test_a_name_that_gains_an_address_is_never_unknown(resolver: Resolver, tmp_path: Path) -> None:
    dns = Unbound(tmp_path / "s", "cluster.local")
    for records in ((ONE,), (ONE, TWO)):
        dns.want({PEERS: records})
        await dns.sync()
    added = [call for call in resolver.calls if not call.startswith("list_")]
    assert added == [f"local_datas {PEERS.name} {ONE}", f"local_datas {PEERS.name} {TWO}"]
    resolver.calls.clear()
    dns.want({PEERS: (TWO,)})
    await dns.sync()
    assert resolver.calls == [f"local_datas_remove {PEERS.name}", f"local_datas {PEERS.name} {TWO}"]


async def test_a_silent_resolver_is_left_alone_for_a_while(
    resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unbound, "TIMEOUT_S", 0.05)
    dns = Unbound(tmp_path / "s", "cluster.local")
    dns.want({PEERS: (ONE,)})
    resolver.silent = True
    await dns.sync()
    asked = len(resolver.calls)
    await dns.sync()
    assert len(resolver.calls) == asked == 1
    assert dns.behind

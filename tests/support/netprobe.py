"""Runs inside pods, hosts and outside: servers that say who answers, probes in bulk, and traffic that must not stop.

Standard library only, since it is mounted into pods as it is.

    netprobe.py serve NAME [--tcp 8080,8081] [--udp 9090]
    netprobe.py probe [--timeout S] [--each N] tcp:HOST:PORT udp:HOST:PORT ...    prints {target: [answer, ...]}
    netprobe.py traffic FILE --stream HOST:PORT --allowed HOST:PORT --denied HOST:PORT    keeps counting into FILE

A TCP server greets with ``NAME PEER-ADDRESS`` and then echoes; a UDP server answers each datagram with that line.
A probe's answer is the line, or ``!`` and the reason.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import cast

PERIOD_S = 0.02
PROBES_AT_ONCE = 64


async def serve(name: str, tcp: list[int], udp: list[int]) -> None:
    """Until SIGTERM; connections that are open then are served to their end, as a polite server does."""
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    open_now: set[asyncio.StreamWriter] = set()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(writer)
        with contextlib.suppress(OSError):
            writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
            writer.close()
        open_now.discard(writer)

    servers = [await asyncio.start_server(greet, "0.0.0.0", port, backlog=512) for port in tcp]
    for port in udp:
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: Udp(name), ("0.0.0.0", port))
    await done.wait()
    for server in servers:
        server.close()
    deadline = time.monotonic() + 1.0
    while open_now and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


class Udp(asyncio.DatagramProtocol):
    """Answers each datagram."""

    def __init__(self, name: str) -> None:
        self.name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        cast(asyncio.DatagramTransport, self.transport).sendto(f"{self.name} {addr[0]}\n".encode(), addr)


async def ask(target: str, timeout_s: float) -> str:
    """One connection or datagram; what answered."""
    protocol, host, port = target.split(":")
    try:
        async with asyncio.timeout(timeout_s):
            if protocol == "udp":
                return await ask_udp(host, int(port))
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                return (await reader.readline()).decode().strip() or "!closed"
            finally:
                writer.close()
    except TimeoutError:
        return "!timeout"
    except socket.gaierror as err:
        return f"!name {err.strerror}"
    except OSError as err:
        return f"!{type(err).__name__}"


async def ask_udp(host: str, port: int) -> str:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    class Client(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
            if not answer.done():
                answer.set_result(data.decode().strip())

        def error_received(self, exc: Exception) -> None:
            if not answer.done():
                answer.set_exception(exc)

    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    transport, _ = await loop.create_datagram_endpoint(Client, remote_addr=(str(found[0][4][0]), port))
    try:
        while True:  # datagrams may be lost
            transport.sendto(b"?")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    return await asyncio.shield(answer)
    finally:
        transport.close()


async def probe(targets: list[str], timeout_s: float, each: int) -> dict[str, list[str]]:
    """Ask every target ``each`` times."""
    turn = asyncio.Semaphore(PROBES_AT_ONCE)

    async def one(target: str) -> str:
        async with turn:
            return await ask(target, timeout_s)

    answers = await asyncio.gather(*(one(target) for target in targets for _ in range(each)))
    return {target: answers[index * each : (index + 1) * each] for index, target in enumerate(targets)}


class Traffic:
    """An established connection in use, new connections that must work, and some that must not."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.counts = {"exchanges": 0, "lost": 0, "allowed": 0, "refused": 0, "denied": 0, "leaked": 0}
        self.gap_s = self.allowed_gap_s = 0.0
        self.said: list[str] = []

    def save(self) -> None:
        scratch = self.path.with_suffix(".new")
        state = {**self.counts, "gap_s": self.gap_s, "allowed_gap_s": self.allowed_gap_s, "said": self.said}
        scratch.write_text(json.dumps(state))
        os.replace(scratch, self.path)

    def note(self, what: str, reason: str) -> None:
        self.counts[what] += 1
        if len(self.said) < 50:
            self.said.append(f"{time.strftime('%H:%M:%S')} {what}: {reason}")

    async def stream(self, target: str) -> None:
        host, _, port = target.partition(":")
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, int(port))
                await reader.readline()
                while True:
                    began = time.monotonic()
                    writer.write(b"x\n")
                    if await reader.readline() != b"x\n":
                        raise ConnectionError("closed by the other side")
                    self.counts["exchanges"] += 1
                    self.gap_s = max(self.gap_s, time.monotonic() - began)
                    await asyncio.sleep(PERIOD_S)
            except OSError as err:
                self.note("lost", repr(err))
                await asyncio.sleep(PERIOD_S)

    async def connect(self, target: str, good: str, bad: str, *, wanted: bool) -> None:
        last = time.monotonic()
        while True:
            answer = await ask(f"tcp:{target}", 3.0 if wanted else 0.3)
            works = not answer.startswith("!")
            if works == wanted:
                self.counts[good] += 1
            else:
                self.note(bad, answer)
            if works and wanted:
                self.allowed_gap_s = max(self.allowed_gap_s, time.monotonic() - last)
                last = time.monotonic()
            await asyncio.sleep(PERIOD_S)

    async def run(self, stream: list[str], allowed: list[str], denied: list[str]) -> None:
        async with asyncio.TaskGroup() as group:
            for target in stream:
                group.create_task(self.stream(target))
            for target in allowed:
                group.create_task(self.connect(target, "allowed", "refused", wanted=True))
            for target in denied:
                group.create_task(self.connect(target, "denied", "leaked", wanted=False))
            while True:
                self.save()
                await asyncio.sleep(0.1)


def _ports(text: str) -> list[int]:
    return [int(port) for port in text.split(",") if port]


def main(argv: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    server = commands.add_parser("serve")
    server.add_argument("name")
    server.add_argument("--tcp", type=_ports, default=[8080])
    server.add_argument("--udp", type=_ports, default=[])
    prober = commands.add_parser("probe")
    prober.add_argument("--timeout", type=float, default=1.0)
    prober.add_argument("--each", type=int, default=1)
    prober.add_argument("targets", nargs="+")
    traffic = commands.add_parser("traffic")
    traffic.add_argument("file")
    for name in ("stream", "allowed", "denied"):
        traffic.add_argument(f"--{name}", action="append", default=[])
    given = parser.parse_args(argv)
    if given.command == "serve":
        asyncio.run(serve(given.name, given.tcp, given.udp))
    elif given.command == "probe":
        print(json.dumps(asyncio.run(probe(given.targets, given.timeout, given.each))))
    else:
        asyncio.run(Traffic(given.file).run(given.stream, given.allowed, given.denied))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Hand connections of an inherited listening socket on to an address. Usage: ``python -m sphere.relay FD HOST PORT``.

The socket belongs to the network namespace it was made in, this process to the machine's: that joins the two.
"""

import asyncio
import contextlib
import signal
import socket
import sys

CHUNK_BYTES = 65536
CONNECT_S = 5.0


async def relay(listener: socket.socket, host: str, port: int) -> None:
    """Until cancelled. A connection that cannot be made at the other side is closed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                there_reader, there_writer = await asyncio.open_connection(host, port)
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, there_writer))
                group.create_task(_copy(there_reader, writer))
            there_writer.close()
        writer.close()

    async with await asyncio.start_server(serve, sock=listener) as server:
        await server.serve_forever()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK_BYTES):
            target.write(data)
            await target.drain()
        target.write_eof()


def main() -> None:
    """Entry point."""
    listener = socket.socket(fileno=int(sys.argv[1]))
    # Interrupted by the terminal or ended by a signal: both are the way to stop it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    asyncio.run(relay(listener, sys.argv[2], int(sys.argv[3])))


if __name__ == "__main__":
    main()

"""A Redis client of one page: RESP over one connection a command."""

import socket
from io import BufferedReader

TIMEOUT_S = 3.0


class Redis:
    """Talks to the server at ``host``. Raises ``OSError`` when it is away, ``RuntimeError`` for its refusals."""

    def __init__(self, host: str, port: int, password: str) -> None:
        self.host, self.port, self.password = host, port, password

    def command(self, *words: str) -> object:
        with socket.create_connection((self.host, self.port), TIMEOUT_S) as connection:
            reader = connection.makefile("rb")
            if self.password:
                connection.sendall(_encode(("AUTH", self.password)))
                _decode(reader)
            connection.sendall(_encode(words))
            return _decode(reader)


def _encode(words: tuple[str, ...]) -> bytes:
    parts = [f"${len(word.encode())}\r\n{word}\r\n" for word in words]
    return f"*{len(words)}\r\n{''.join(parts)}".encode()


def _decode(reader: BufferedReader) -> object:
    line = reader.readline().decode().rstrip()
    if not line:
        raise OSError("the database closed the connection")
    kind, rest = line[0], line[1:]
    if kind == "-":
        raise RuntimeError(rest)
    if kind == ":":
        return int(rest)
    if kind == "$":
        return None if rest == "-1" else reader.read(int(rest) + 2)[:-2].decode()
    return rest

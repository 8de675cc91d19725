"""Walks rendered firewall entries as the kernel would walk its rules. Anything it does not know is an error."""

import ipaddress
from collections.abc import Mapping

from nsx_agent.model import ChainKey, ChainSpec, ElementKey, Key, SetKey, Value


class Packet:
    """Judges one packet after the other against ``entries`` (sets, chains, elements of one host)."""

    def __init__(self, entries: Mapping[Key, Value]) -> None:
        self._entries = entries
        self._ranges: dict[str, list[ipaddress.IPv4Network]] = {}

    def passes(self, source: str, destination: str, protocol: str, port: int) -> bool:
        """Between two pods of this host."""
        return self.leaves(source, destination, protocol, port) and self.enters(source, destination, protocol, port)

    def leaves(self, source: str, destination: str, protocol: str, port: int) -> bool:
        """Whether egress of the local pod ``source`` is allowed."""
        self._set(source, destination, protocol, port)
        return self._verdict("egress", source) == "arrive"

    def enters(self, source: str, destination: str, protocol: str, port: int) -> bool:
        """Whether ingress of the local pod ``destination`` is allowed."""
        self._set(source, destination, protocol, port)
        return self._verdict("ingress", destination) in ("accept", "arrive")

    def _set(self, source: str, destination: str, protocol: str, port: int) -> None:
        self._source, self._destination, self._protocol, self._port = source, destination, protocol, port

    def _verdict(self, direction: str, pod: str) -> str:
        data = self._entries.get(ElementKey(direction, pod))
        if data is None:
            return "arrive"
        assert isinstance(data, str)
        return "drop" if data == "drop" else self._chain(data.removeprefix("goto "))

    def _chain(self, name: str) -> str:
        if name.startswith("deny_"):
            return "drop"
        spec = self._entries[ChainKey(name)]
        assert isinstance(spec, ChainSpec)
        for rule in spec.rules:
            words = rule.split()
            if words[0] == "jump":
                verdict = self._chain(words[1])
                if verdict != "continue":
                    return verdict
            elif words[0] == "goto":
                return "arrive" if words[1] == "arrive" else self._chain(words[1])
            elif words[0] == "drop":
                return "drop"
            elif self._matches(words):
                return "arrive" if words[-1] == "arrive" else words[-1]
        return "continue"

    def _matches(self, words: list[str]) -> bool:
        rest = words[:-2] if words[-2:] == ["goto", "arrive"] else words[:-1]
        while rest:
            if rest[0] == "ip" and rest[2].startswith("@"):
                if not self._holds(rest[2][1:], self._source if rest[1] == "saddr" else self._destination):
                    return False
                rest = rest[3:]
            elif rest[:2] == ["meta", "l4proto"]:
                if rest[2] != self._protocol:
                    return False
                rest = rest[3:]
            elif rest[1] == "dport" and rest[2] == "{":
                end = rest.index("}")
                if rest[0] != self._protocol or str(self._port) not in " ".join(rest[3:end]).split(", "):
                    return False
                rest = rest[end + 1 :]
            else:
                raise AssertionError(f"unknown rule syntax: {' '.join(rest)}")
        return True

    def _holds(self, name: str, address: str) -> bool:
        assert SetKey(name) in self._entries, name
        if ElementKey(name, address) in self._entries:
            return True
        if not name.startswith("i_"):
            return False
        if name not in self._ranges:
            keys = (key for key in self._entries if isinstance(key, ElementKey) and key.set == name)
            self._ranges[name] = [ipaddress.IPv4Network(key.key) for key in keys]
        return any(ipaddress.IPv4Address(address) in each for each in self._ranges[name])

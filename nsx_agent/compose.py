"""Merging of per-item fragments into one set of entries. Pure.

Each **owner** (an item, or a namespace's firewall) contributes entries. Equal entries of several owners, such as a
shared chain, are held once. Where owners disagree about a key the first by name wins, and the others are told.
"""

from collections.abc import Iterator, Mapping

from nsx_agent.model import Key, Value


class Composite:
    """Entries by key, with the owners behind each. ``entries`` is what should be in force."""

    def __init__(self) -> None:
        self.entries: dict[Key, Value] = {}
        self._owner: dict[Key, str] = {}
        self._shared: dict[Key, dict[str, Value]] = {}
        self._fragments: dict[str, Mapping[Key, Value]] = {}
        self._disputed: set[Key] = set()

    def replace(self, owner: str, fragment: Mapping[Key, Value]) -> set[Key]:
        """Let ``owner`` contribute ``fragment`` from now on. Returns the keys whose value may have changed."""
        before = self._fragments.get(owner, {})
        changed = {key for key, value in before.items() if fragment.get(key) != value}
        changed |= {key for key in fragment if key not in before}
        for key in changed:
            value = fragment.get(key)
            if value is None:
                self._withdraw(owner, key)
            else:
                self._offer(owner, key, value)
        if fragment:
            self._fragments[owner] = dict(fragment)
        else:
            self._fragments.pop(owner, None)
        return changed

    def owner_of(self, key: Key) -> str:
        """Who contributes the value in force; empty if nobody does."""
        return self._owner.get(key, "")

    def disputes(self) -> Iterator[tuple[str, str, Key]]:
        """(owner, who won, key) for each owner that wants another value of a key than the one in force."""
        for key in self._disputed:
            for owner, value in self._shared[key].items():
                if value != self.entries[key]:
                    yield owner, self._owner[key], key

    def _offer(self, owner: str, key: Key, value: Value) -> None:
        holder = self._owner.get(key)
        if holder is None or (holder == owner and key not in self._shared):
            self._owner[key], self.entries[key] = owner, value
            return
        shared = self._shared.setdefault(key, {holder: self.entries[key]})
        shared[owner] = value
        self._elect(key, shared)

    def _withdraw(self, owner: str, key: Key) -> None:
        shared = self._shared.get(key)
        if shared is None:
            self._owner.pop(key, None)
            self.entries.pop(key, None)
            return
        shared.pop(owner, None)
        self._elect(key, shared)
        if len(shared) == 1:
            del self._shared[key]

    def _elect(self, key: Key, shared: Mapping[str, Value]) -> None:
        winner = min(shared)
        self._owner[key], self.entries[key] = winner, shared[winner]
        if any(value != shared[winner] for value in shared.values()):
            self._disputed.add(key)
        else:
            self._disputed.discard(key)

"""Desired state per scope: encoded items, their count and set digest, and what changed since the last pass. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from common.messages import DIGEST_MODULUS, MESSAGE_BYTES_MAX, Message, Scope, encode, item_hash


@dataclass(slots=True)
class ScopeItems:
    """Items of one scope by key, encoded, with a digest that is current after every change."""

    items: dict[str, bytes] = field(default_factory=dict)
    total: int = 0

    @property
    def digest(self) -> bytes:
        """As ``common.messages.set_digest`` of the items."""
        return self.total.to_bytes(16, "big")

    def put(self, key: str, payload: bytes | None) -> bool:
        """Set or (None) remove an item. True if that changed anything."""
        old = self.items.get(key)
        if old == payload:
            return False
        if old is not None:
            self.total = (self.total - item_hash(key, old)) % DIGEST_MODULUS
            del self.items[key]
        if payload is not None:
            self.total = (self.total + item_hash(key, payload)) % DIGEST_MODULUS
            self.items[key] = payload
        return True


Changes = Mapping[Scope, Mapping[str, bytes | None]]
"""Per scope the changed keys and their payloads; None is a deletion. An empty mapping: only the manifest is due."""


class Desired:
    """All scopes. A scope may exist without items: it then still has a manifest."""

    def __init__(self) -> None:
        self.scopes: dict[Scope, ScopeItems] = {}
        self.refused: dict[tuple[Scope, str], str] = {}
        """Items too large to publish, and why. What was published of them before stays."""
        self._changed: dict[Scope, dict[str, bytes | None]] = {}

    def put(self, scope: Scope, key: str, item: Message | None) -> bool:
        """True if the item differs from before."""
        payload = None if item is None else encode(item)
        self.refused.pop((scope, key), None)
        if payload is not None and len(payload) > MESSAGE_BYTES_MAX:
            self.refused[(scope, key)] = f"{len(payload)} bytes is more than a message may have ({MESSAGE_BYTES_MAX})"
            return False
        items = self.scopes.get(scope)
        if items is None:
            if payload is None:
                return False
            items = self.open(scope)
        if not items.put(key, payload):
            return False
        self._changed.setdefault(scope, {})[key] = payload
        return True

    def open(self, scope: Scope) -> ScopeItems:
        """Make ``scope`` exist."""
        found = self.scopes.get(scope)
        if found is None:
            found = self.scopes[scope] = ScopeItems()
            self._changed.setdefault(scope, {})
        return found

    def close(self, scope: Scope) -> None:
        """Remove ``scope`` with all its items."""
        found = self.scopes.pop(scope, None)
        if found is not None:
            self._changed[scope] = dict.fromkeys((*self._changed.get(scope, ()), *found.items))

    def take_changes(self) -> Changes:
        """What changed since the last call."""
        changed, self._changed = self._changed, {}
        return changed

    def changed_hosts(self) -> set[str]:
        """Hosts whose own scope changed since ``take_changes``."""
        return {scope.path.removeprefix("host/") for scope in self._changed if scope.path.startswith("host/")}

    def keys(self, scope: Scope) -> Iterable[str]:
        found = self.scopes.get(scope)
        return () if found is None else found.items.keys()

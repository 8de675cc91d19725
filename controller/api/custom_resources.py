"""Serves what CustomResourceDefinitions define: kinds come and go with them.

Law: a definition is served from the moment its condition Established is in the cache, and until it is gone.
"""

from functools import partial
from typing import Final

from common.logs import logger
from controller.kinds.custom_definition import GROUP
from controller.kinds.custom_kind import complete, kinds_of
from controller.kinds.kind import ResourceKey
from controller.kinds.registry import Registry
from controller.store.cache import Cache, Change
from controller.store.entry import Entry

DEFINITIONS: Final = ResourceKey(GROUP, "customresourcedefinitions")
log = logger("custom-resources")


class CustomResources:
    """Keeps ``kinds`` in step with the definitions in a synced ``cache``. Build it once per process."""

    def __init__(self, cache: Cache, kinds: Registry) -> None:
        self._cache = cache
        self._kinds = kinds
        self._builtin = {kind.key for kind in kinds.all()}
        self._served: dict[str, ResourceKey] = {}
        """By the definition's name."""
        cache.subscribe([DEFINITIONS], self._changed)
        for entry in cache.list(DEFINITIONS):
            self._serve(entry)

    def _changed(self, change: Change) -> None:
        if change.type == "DELETED":
            self._forget(change.entry.name)
        else:
            self._serve(change.entry)

    def _serve(self, entry: Entry) -> None:
        try:
            made = kinds_of(entry.decode())
        except (KeyError, TypeError, ValueError, AttributeError) as err:
            # Validation should have refused it: it stays with this one definition, loudly.
            log.error("cannot serve a definition", definition=entry.name, reason=f"{type(err).__name__}: {err}")
            return
        if not made or made[0].key in self._builtin:
            return
        key = made[0].key
        self._kinds.remove(key)
        for kind in made:
            self._kinds.add(kind)
        self._served[entry.name] = key
        self._cache.read_with(key, partial(complete, self._kinds.by_key(key)))

    def _forget(self, name: str) -> None:
        key = self._served.pop(name, None)
        if key is not None:
            self._kinds.remove(key)
            self._cache.read_with(key, None)

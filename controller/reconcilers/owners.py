"""Owner references: who controls an object, and who may adopt it. Pure."""

import hashlib
from collections.abc import Callable

from controller.kinds.kind import Object

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Upstream's safe characters: no vowels and no digits that look like letters, so no words come out."""


def controller_of(obj: Object) -> dict[str, object] | None:
    """The owner reference with ``controller: true``."""
    references = obj["metadata"].get("ownerReferences") or ()
    return next((each for each in references if each.get("controller")), None)


def is_controlled_by(obj: Object, owner: Object) -> bool:
    found = controller_of(obj)
    return found is not None and found.get("uid") == owner["metadata"]["uid"]


def reference_to(owner: Object) -> dict[str, object]:
    """A controlling owner reference that holds back foreground deletion of ``owner``."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def safe_hash(text: str, length: int) -> str:
    """Short deterministic name part, for example a pod-template-hash."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")
    found = []
    for _ in range(length):
        number, rest = divmod(number, len(_ALPHABET))
        found.append(_ALPHABET[rest])
    return "".join(found)


def salt_of(owner: Object) -> str:
    """For names of children: another one for every version of ``owner``.

    A controller that dies while it makes children leaves ``owner`` as it was. The next one, even if it does not see all
    of them yet, arrives at the same names and so makes none twice.
    """
    return f"{owner['metadata']['uid']}/{owner['metadata'].get('resourceVersion', '')}"


def fresh_names(prefix: str, salt: str, count: int, taken: Callable[[str], bool]) -> list[str]:
    """``count`` different names ``<prefix>-xxxxx`` that are not taken. Deterministic in ``salt``.

    Planned names make creation idempotent: the same plan applied twice cannot make two children.
    """
    names: list[str] = []
    attempt = 0
    while len(names) < count:
        name = f"{prefix[:57].rstrip('-.')}-{safe_hash(f'{salt}/{attempt}', 5)}"
        attempt += 1
        if name not in names and not taken(name):
            names.append(name)
    return names

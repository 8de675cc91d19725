"""Which images go when their disk is nearly full."""

from spherelet.images.collector import Needed, candidates, excess
from spherelet.images.disks import Disk
from spherelet.images.store import Held

NOW = 10_000.0


def held(name: str, *, pinned: bool = False) -> Held:
    return Held(f"sha256:{name}", frozenset((f"sha256:{name}", f"docker.io/library/{name}:1")), 100, pinned)


def test_nothing_is_freed_below_the_high_mark_and_then_down_to_the_low_one() -> None:
    assert excess(Disk(1000, 160), pressed=False) == 0
    assert excess(Disk(1000, 150), pressed=False) == 50
    assert excess(Disk(1000, 160), pressed=True) == 40
    assert excess(Disk(1000, 900), pressed=True) == 0


def test_the_longest_unused_goes_first_and_what_is_needed_stays() -> None:
    images = [held("used"), held("old"), held("older"), held("new"), held("kept", pinned=True)]
    used_at = {"sha256:old": NOW - 500, "sha256:older": NOW - 900, "sha256:new": NOW - 60, "sha256:kept": 0.0}
    needed = Needed(frozenset({"docker.io/library/used:1"}))

    def names(*, pressed: bool) -> list[str]:
        return [each.id.removeprefix("sha256:") for each in candidates(images, needed, used_at, NOW, pressed=pressed)]

    assert names(pressed=False) == ["older", "old"]
    assert names(pressed=True) == ["older", "old", "new"]
    assert Needed(frozenset({"sha256:used"})).has(images[0])

"""When a revision is in force: histories, watermarks, dead hosts."""

from common.messages import Manifest, Scope, Watermark
from controller.network.presence import OFFLINE_GRACE_S, UNHEARD_GRACE_S, Presences
from controller.network.realization import HISTORY_MAX, Realization

RED, BLUE = Scope.namespace("red"), Scope.namespace("blue")


def manifest(revision: int, digest: bytes = b"") -> Manifest:
    digest = digest or revision.to_bytes(16, "big")
    return Manifest(epoch="e", revision=revision, count=1, digest=digest, changed_at=0.0)


def watermark(host: str, scope: Scope, of: Manifest, epoch: str = "e") -> Watermark:
    return Watermark(host=host, scope=scope.path, epoch=epoch, revision=of.revision, digest=of.digest, committed_at=1.0)


class World:
    def __init__(self) -> None:
        self.hosts = {"host-1", "host-2"}
        self.realization = Realization("e", lambda scope: frozenset(self.hosts))

    def confirm(self, host: str, scope: Scope, of: Manifest, epoch: str = "e") -> None:
        self.realization.confirm(host, scope, watermark(host, scope, of, epoch))


def test_nothing_is_reached_before_a_pass_covered_it() -> None:
    world = World()
    assert not world.realization.reached((RED,), 5)
    world.realization.note_pass(4, {})
    assert not world.realization.reached((RED,), 5)
    world.realization.note_pass(5, {})
    assert world.realization.reached((RED,), 5)


def test_all_hosts_must_confirm_and_the_late_one_is_named() -> None:
    world = World()
    world.realization.note_pass(5, {RED: manifest(5)})
    world.confirm("host-1", RED, manifest(5))
    assert not world.realization.reached((RED,), 5)
    assert [str(lag) for lag in world.realization.behind((RED,), 5)] == [
        "host-2 has confirmed nothing yet, needs 5 of ns/red"
    ]
    world.confirm("host-2", RED, manifest(5))
    assert world.realization.reached((RED,), 5)


def test_later_changes_neither_delay_nor_hide_earlier_ones() -> None:
    world = World()
    world.realization.note_pass(5, {RED: manifest(5)})
    world.realization.note_pass(9, {RED: manifest(9)})
    for host in world.hosts:
        world.confirm(host, RED, manifest(5))
    assert world.realization.reached((RED,), 5)
    assert world.realization.reached((RED,), 3), "covered by the pass at 5"
    assert not world.realization.reached((RED,), 6)
    for host in world.hosts:
        world.confirm(host, RED, manifest(9))
    assert world.realization.reached((RED,), 9)


def test_a_pass_that_left_the_scope_alone_needs_only_what_was_before() -> None:
    world = World()
    world.realization.note_pass(5, {RED: manifest(5), BLUE: manifest(5)})
    world.realization.note_pass(7, {BLUE: manifest(7)})
    for host in world.hosts:
        world.confirm(host, RED, manifest(5))
    assert world.realization.reached((RED,), 7)
    assert not world.realization.reached((RED, BLUE), 7)
    assert not world.realization.reached(None, 7)


def test_same_revision_other_content_is_told_apart() -> None:
    world = World()
    world.realization.note_pass(5, {RED: manifest(5, b"a" * 16)})
    world.realization.note_pass(5, {RED: manifest(5, b"b" * 16)})
    token = world.realization.latest(RED)
    for host in world.hosts:
        world.confirm(host, RED, manifest(5, b"a" * 16))
    assert not world.realization.all_confirmed(RED, token)
    for host in world.hosts:
        world.confirm(host, RED, manifest(5, b"b" * 16))
    assert world.realization.all_confirmed(RED, token)


def test_another_epoch_and_older_news_do_not_count() -> None:
    world = World()
    world.realization.note_pass(5, {RED: manifest(5)})
    for host in world.hosts:
        world.confirm(host, RED, manifest(5), epoch="former")
    assert not world.realization.reached((RED,), 5)
    for host in world.hosts:
        world.confirm(host, RED, manifest(99))
    assert not world.realization.reached((RED,), 5), "a revision that was never planned confirms nothing"


def test_dead_hosts_do_not_block_and_must_catch_up() -> None:
    world = World()
    world.realization.note_pass(5, {RED: manifest(5)})
    for host in ("host-1", "host-2"):
        world.confirm(host, RED, manifest(5))
    world.hosts.discard("host-2")
    world.realization.note_pass(6, {RED: manifest(6)})
    world.confirm("host-1", RED, manifest(6))
    assert world.realization.reached((RED,), 6)
    world.hosts.add("host-2")
    world.realization.forget_host("host-2")
    assert not world.realization.reached((RED,), 5)


def test_reports_that_came_before_the_first_pass_count() -> None:
    world = World()
    for host in world.hosts:
        world.confirm(host, RED, manifest(5))
    world.realization.note_pass(8, {RED: manifest(5)})
    assert world.realization.reached((RED,), 8)


def test_a_long_history_is_cut_and_never_early() -> None:
    world = World()
    for revision in range(1, HISTORY_MAX * 3):
        world.realization.note_pass(revision, {RED: manifest(revision)})
    for host in world.hosts:
        world.confirm(host, RED, manifest(2))
    assert not world.realization.reached((RED,), 3)
    for host in world.hosts:
        world.confirm(host, RED, manifest(HISTORY_MAX * 3 - 1))
    assert world.realization.reached((RED,), HISTORY_MAX * 3 - 1)
    assert not world.realization.hosts_behind()


def test_presence_has_grace() -> None:
    presences = Presences(100.0)
    assert presences.online("new", 100.0)
    assert not presences.online("new", 100.0 + UNHEARD_GRACE_S)
    presences.heard("host-1", True, 101.0)
    presences.heard("host-1", False, 200.0)
    assert presences.next_deadline(200.0) == 200.0 + OFFLINE_GRACE_S
    assert presences.online("host-1", 200.0 + OFFLINE_GRACE_S / 2)
    assert not presences.online("host-1", 200.0 + OFFLINE_GRACE_S)
    presences.heard("host-1", True, 210.0)
    assert presences.online("host-1", 300.0)

"""The journal: what was written comes back, what was torn does not."""

import resource
from contextlib import contextmanager

import pytest

from common.errors import Retryable
from common.messages import Manifest
from nsx_agent.state import Commit, ScopeCommit, Snapshot, StateDir

MANIFEST = Manifest(epoch="e", revision=3, count=1, digest=b"\0" * 16, changed_at=1.5)


def test_empty_directory_starts_a_new_incarnation(tmp_path):
    snapshot, commits = StateDir(tmp_path / "s").load("new")
    assert (snapshot.number, snapshot.incarnation, commits) == (0, "new", [])


def test_snapshot_and_journal_come_back(tmp_path):
    state = StateDir(tmp_path / "s")
    slots = {"service/a/b": {"tcp/80": ("10.0.0.1 . 80",)}}
    before = Snapshot(7, "abc", {"cluster": MANIFEST}, {"cluster": {"host/a": b"x"}}, slots)
    state.start(before)
    commit = Commit(8, {"ns/a": ScopeCommit(MANIFEST, {"set/1": b"y", "set/2": None})}, ("ns/b",))
    state.append(commit)
    state.close()
    assert StateDir(tmp_path / "s").load("other") == (before, [commit])


def test_files_are_for_root_only(tmp_path):
    state = StateDir(tmp_path / "s")
    state.start(Snapshot(incarnation="a"))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "s").iterdir()} == {0o600}


def test_torn_record_is_dropped(tmp_path):
    state = StateDir(tmp_path / "s")
    state.start(Snapshot(incarnation="a"))
    for number in (1, 2):
        state.append(Commit(number, {}, ("ns/x",)))
    state.close()
    journal = tmp_path / "s" / "journal-0"
    journal.write_bytes(journal.read_bytes()[:-3])
    assert [commit.number for commit in StateDir(tmp_path / "s").load("b")[1]] == [1]


@contextmanager
def full_disk(size):
    """No file may grow beyond ``size`` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_said_once_and_leaves_what_was_there_readable(tmp_path):
    state = StateDir(tmp_path / "s")
    state.start(Snapshot(incarnation="a"))
    state.append(Commit(1, {}, ("ns/x",)))
    size = (tmp_path / "s" / "journal-0").stat().st_size
    with full_disk(size + 5):
        with pytest.raises(Retryable, match="state_dir"):
            state.append(Commit(2, {}, ("ns/y",)))
        state.append(Commit(3, {}, ("ns/z",)))  # nothing may follow what is missing
    state.append(Commit(4, {}, ("ns/z",)))
    assert [commit.number for commit in StateDir(tmp_path / "s").load("b")[1]] == [1]
    assert state.wants_compaction
    with full_disk(8), pytest.raises(Retryable, match="state_dir"):
        state.start(Snapshot(number=4, incarnation="a"))
    assert [commit.number for commit in StateDir(tmp_path / "s").load("b")[1]] == [1]
    state.start(Snapshot(number=4, incarnation="a"))
    state.append(Commit(5, {}, ("ns/q",)))
    snapshot, commits = StateDir(tmp_path / "s").load("b")
    assert (snapshot.number, [commit.number for commit in commits]) == (4, [5])


@pytest.mark.parametrize("harm", [b"", b"\0" * 40, b"nonsense that is long enough for a header"])
def test_a_broken_snapshot_is_no_state(tmp_path, harm):
    state = StateDir(tmp_path / "s")
    state.start(Snapshot(number=3, incarnation="a"))
    (tmp_path / "s" / "snapshot").write_bytes(harm)
    assert StateDir(tmp_path / "s").load("b") == (Snapshot(incarnation="b"), [])


def test_a_record_of_another_shape_is_no_state(tmp_path):
    state = StateDir(tmp_path / "s")
    state.start(Snapshot(number=3, incarnation="a", manifests={"cluster": MANIFEST}))
    raw = (tmp_path / "s" / "snapshot").read_bytes()
    assert b"manifests" in raw
    from nsx_agent import state as module

    (tmp_path / "s" / "snapshot").write_bytes(module._pack({"format": module.FORMAT, "number": 3}))
    assert StateDir(tmp_path / "s").load("b") == (Snapshot(incarnation="b"), [])

"""The journal: what was written comes back, what was torn does not."""

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

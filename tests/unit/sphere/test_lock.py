"""One command at a time, and one cluster: also while the last command takes the lock's file away."""

import os
from pathlib import Path

import pytest

from common.errors import Terminal
from sphere import lock
from sphere.layout import Layout


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lock, "LOCK_DIR", tmp_path / "lock")
    return tmp_path / "lock"


def test_the_second_command_is_told_of_the_first() -> None:
    first = rf"`sphere up` \(pid {os.getpid()}\) is at work"
    with lock.held("up"), pytest.raises(Terminal, match=first), lock.held("down"):
        pass
    with lock.held("down"):
        pass


def test_after_down_there_is_nothing_and_the_next_lock_holds(folder: Path) -> None:
    with lock.held("down"):
        lock.release()
        assert not folder.exists()
        with lock.held("up"), pytest.raises(Terminal, match="`sphere up`"), lock.held("down"):
            pass


def test_a_lock_on_a_file_that_was_taken_away_is_not_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, times = lock.fcntl.flock, []

    def removed_meanwhile(file: object, operation: int) -> None:
        flock(file, operation)  # type: ignore[arg-type]
        times.append(operation)
        if len(times) == 1:
            lock.release()

    monkeypatch.setattr(lock.fcntl, "flock", removed_meanwhile)
    with lock.held("up"):
        assert len(times) == 2
        assert (folder / "lock").exists(), "others meet it"


def test_one_cluster_on_a_machine(tmp_path: Path) -> None:
    with lock.held("up"):
        lock.claim(Layout(tmp_path / "one"))
    lock.check_owner(Layout(tmp_path / "one"))
    with pytest.raises(Terminal, match=f"SPHERE_RUN={tmp_path}/one sphere down"):
        lock.check_owner(Layout(tmp_path / "two"))

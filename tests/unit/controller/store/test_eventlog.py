"""The log that watchers read: cursors, expiry, shared frames."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kinds.kind import ResourceKey
from controller.store import eventlog
from controller.store.entry import Entry, at_revision, encode, key_for, make_entry, parse_key
from controller.store.eventlog import Change, EventLog, Expired

PODS = ResourceKey("", "pods")


def entry(revision: int, name: str = "a") -> Entry:
    stored = encode({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "uid": "u"}, "spec": {}})
    return make_entry(key_for(PODS, "n", name), stored, revision, lambda resource, obj: {})


def test_the_version_is_spliced_into_the_bytes() -> None:
    made = entry(7)
    assert made.decode()["metadata"]["resourceVersion"] == "7"
    assert made.deleted_at(9).decode()["metadata"]["resourceVersion"] == "9"
    assert at_revision(made.body, 7) == made.body


def test_frames_are_encoded_once() -> None:
    log = EventLog(0)
    log.append(Change("MODIFIED", entry(5), entry(4), 5))
    [event] = log.since(0)
    assert event.frame("MODIFIED") is event.frame("MODIFIED")
    assert b'"resourceVersion":"5"' in event.frame("DELETED"), "who leaves a selector is deleted at the new revision"


def test_a_cursor_that_fell_out_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "EVENTS_MAX", 8)
    log = EventLog(0)
    for revision in range(1, 20):
        log.append(Change("ADDED", entry(revision), None, revision))
    with pytest.raises(Expired):
        log.since(0)
    with pytest.raises(Expired):
        log.cursor_after(log.floor - 1)
    assert [event.change.revision for event in log.since(log.cursor_after(log.floor))] == list(range(log.floor + 1, 20))


@given(st.lists(st.integers(1, 30), min_size=1), st.integers(0, 31))
def test_cursor_after_is_exact(revisions: list[int], wanted: int) -> None:
    log = EventLog(0)
    for revision in sorted(revisions):
        log.append(Change("ADDED", entry(revision), None, revision))
    found = [event.change.revision for event in log.since(log.cursor_after(wanted))]
    assert found == [revision for revision in sorted(revisions) if revision > wanted]


def test_keys_come_back() -> None:
    for resource, namespace in ((PODS, "n"), (ResourceKey("apps", "deployments"), "n"), (ResourceKey("", "nodes"), "")):
        assert parse_key(key_for(resource, namespace, "x")) == (resource, namespace, "x")

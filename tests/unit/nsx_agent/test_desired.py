"""The gate: complete or not at all."""

from common.messages import Manifest, Scope, encode, item_hash, set_digest
from nsx_agent.desired import Desired, ScopeStore


def manifest(items, revision=1):
    hashes = [item_hash(key, payload) for key, payload in items.items()]
    return Manifest(epoch="e", revision=revision, count=len(items), digest=set_digest(hashes), changed_at=0.0)


def filled(items, revision=1):
    store = ScopeStore(Scope.cluster())
    for key, payload in items.items():
        store.put(key, payload)
    store.put_manifest(manifest(items, revision))
    return store


def test_nothing_counts_before_the_manifest_matches():
    store = ScopeStore(Scope.cluster())
    store.put("service/a/b", b"1")
    assert not store.in_sync
    store.put_manifest(manifest({"service/a/b": b"1", "service/a/c": b"2"}))
    assert not store.in_sync
    store.put("service/a/c", b"2")
    assert store.in_sync
    assert store.take() == {"service/a/b", "service/a/c"}


def test_manifest_before_items_is_as_good():
    store = ScopeStore(Scope.cluster())
    store.put_manifest(manifest({"host/a": b"1"}))
    assert not store.in_sync
    store.put("host/a", b"1")
    assert store.in_sync


def test_duplicates_and_same_payloads_change_nothing():
    store = filled({"host/a": b"1"})
    store.take()
    store.put("host/a", b"1")
    store.put_manifest(manifest({"host/a": b"1"}))
    assert store.in_sync
    assert store.take() == set()


def test_what_was_deleted_while_away_goes_only_when_the_new_picture_is_complete():
    store = filled({"host/a": b"1", "host/b": b"2"})
    store.take()
    store.restart()
    assert store.held.keys() == {"host/a", "host/b"}
    store.put("host/a", b"1")
    assert not store.in_sync, "no manifest on this connection yet"
    store.put_manifest(manifest({"host/a": b"1"}, 2))
    assert store.take() == {"host/b"}
    assert store.held == {"host/a": b"1"}


def test_what_is_sent_again_is_kept_once():
    store = filled({"host/a": bytes(1000)})
    store.take()
    store.restart()
    again = bytes(1000)
    store.put("host/a", again)
    assert store._arriving["host/a"] is store.held["host/a"]
    assert store._arriving["host/a"] is not again


def test_older_manifest_of_the_epoch_is_a_duplicate():
    store = filled({"host/a": b"1"}, revision=5)
    store.put_manifest(manifest({}, 4))
    assert store.in_sync
    assert store.target.revision == 5


def test_scopes_not_held_are_ignored_and_interest_adds_and_removes():
    desired = Desired("h")
    topic = Scope.namespace("x").item_topic("set/1")
    assert desired.receive(topic, b"1") is None
    assert desired.set_interest(["x", "y"]) == (["x", "y"], [])
    assert desired.receive(topic, b"1") is desired.namespaces["x"]
    assert desired.set_interest(["y"]) == ([], ["x"])
    assert desired.receive(Scope.cluster().manifest_topic, encode(manifest({}))) is desired.cluster

"""The incremental plan equals the plan made from scratch, whatever happened and whenever it was planned."""

from hypothesis import given, settings
from hypothesis import strategies as st

from common.messages import AddressSetItem, PolicyItem, Scope, decode_item, item_hash, set_digest
from controller.kinds.kind import Object, ResourceKey
from controller.network.planner import Planner
from controller.network.views import view_of
from tests.support.network_objects import HOSTS, Event, events


def feed(planner: Planner, event: Event) -> None:
    resource, namespace, name, obj = event
    planner.apply(resource, namespace, name, None if obj is None else view_of(resource, obj))


def contents(planner: Planner) -> dict[Scope, dict[str, bytes]]:
    return {scope: dict(items.items) for scope, items in planner.desired.scopes.items()}


steps = st.lists(
    st.one_of(events(), events(), events(), st.just("plan"), st.tuples(st.sampled_from(HOSTS), st.booleans())),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_incremental_equals_full(history: list[Event | str | tuple[str, bool]]) -> None:
    incremental = Planner()
    published: dict[Scope, dict[str, bytes]] = {}
    world: dict[tuple[ResourceKey, str, str], Object] = {}
    online: dict[str, bool] = {}

    def plan() -> None:
        for scope, changes in incremental.plan().items():
            held = published.setdefault(scope, {})
            for key, payload in changes.items():
                if payload is None:
                    held.pop(key, None)
                else:
                    held[key] = payload
            if scope not in incremental.desired.scopes:
                assert not published.pop(scope)

    for step in history:
        if isinstance(step, str):
            plan()
        elif len(step) == 2:
            online[step[0]] = step[1]
            incremental.set_online(step[0], step[1])
        else:
            feed(incremental, step)
            resource, namespace, name, obj = step
            if obj is None:
                world.pop((resource, namespace, name), None)
            else:
                world[(resource, namespace, name)] = obj
    plan()

    full = Planner()
    for (resource, namespace, name), obj in sorted(world.items(), key=lambda pair: pair[0], reverse=True):
        feed(full, (resource, namespace, name, obj))
    for host, on in online.items():
        full.set_online(host, on)
    full.plan()
    assert contents(incremental) == contents(full)
    assert published == contents(full)
    for items in incremental.desired.scopes.values():
        assert items.digest == set_digest(item_hash(key, payload) for key, payload in items.items.items())


@settings(max_examples=100, deadline=None)
@given(st.lists(events(), max_size=40))
def test_every_set_that_a_policy_names_is_in_its_scope(history: list[Event]) -> None:
    planner = Planner()
    for event in history:
        feed(planner, event)
        planner.plan()
    for scope, items in planner.desired.scopes.items():
        decoded = {key: decode_item(key, payload) for key, payload in items.items.items()}
        named = set()
        for item in decoded.values():
            if isinstance(item, PolicyItem):
                named.add(item.selected)
                named.update(each for rule in (item.ingress or ()) + (item.egress or ()) for each in rule.sets)
        held = {item.id for item in decoded.values() if isinstance(item, AddressSetItem)}
        assert named == held, scope

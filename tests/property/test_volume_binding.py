"""Whatever claims, volumes and order of work: one volume has one claim, and every interruption converges."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.kinds import claims
from controller.runtime.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES, key_of
from controller.runtime.writes import Delete, EmitEvent
from tests.support.model_registry import ModelRegistry
from tests.unit.controller.reconcilers.test_volumes import (
    WORLD,
    claim,
    node,
    select,
    settle,
    storage_class,
    volume,
)

SIZES = st.integers(1, 4)
CLASSES = st.sampled_from(["", "local", "disks"])


def check(registry: ModelRegistry) -> None:
    """Law: no volume is shared, whoever looks, at any moment."""
    found = registry.view.objects(PERSISTENT_VOLUME_CLAIMS)
    named = [claims.volume_of(each) for each in found if claims.volume_of(each)]
    assert len(named) == len(set(named)), "two claims name one volume"
    for each in found:
        if claims.is_bound(each):
            kept = registry.view.get(PERSISTENT_VOLUMES, "", claims.volume_of(each))
            assert kept is not None
            assert kept["spec"]["claimRef"]["uid"] == each["metadata"]["uid"]


@settings(max_examples=60, deadline=None)
@given(
    wanted=st.lists(st.tuples(SIZES, CLASSES, st.booleans()), max_size=5),
    offered=st.lists(st.tuples(SIZES, CLASSES, st.sampled_from(["", "host-1", "host-2"])), max_size=5),
    seed=st.integers(0, 1 << 30),
    deletions=st.integers(0, 3),
)
def test_one_volume_one_claim(
    wanted: list[tuple[int, str, bool]], offered: list[tuple[int, str, str]], seed: int, deletions: int
) -> None:
    draw = random.Random(seed)
    registry = ModelRegistry()
    registry.put(STORAGE_CLASSES, storage_class())
    registry.put(STORAGE_CLASSES, storage_class("disks", "kubernetes.io/no-provisioner"))
    for host in ("host-1", "host-2"):
        registry.put(NODES, node(host))
    for index, (size, name, host) in enumerate(offered):
        registry.put(PERSISTENT_VOLUMES, volume(f"v{index}", f"{size}Gi", host, storageClassName=name))
    for index, (size, name, is_selected) in enumerate(wanted):
        registry.put(PERSISTENT_VOLUME_CLAIMS, claim(f"c{index}", f"{size}Gi", storageClassName=name))
        if is_selected:
            select(registry, draw.choice(("host-1", "host-2")), f"c{index}")
    for step in range(60):
        keys = [
            key_of(each) for r in (PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES) for each in registry.view.objects(r)
        ]
        if not keys:
            break
        key = draw.choice(keys)
        for write in registry.plan(WORLD[0], key).writes[: draw.randint(0, 2)]:
            registry.apply(write)
            check(registry)
        if step % 20 == 19 and deletions:
            deletions -= 1
            left = registry.view.entries(PERSISTENT_VOLUME_CLAIMS)
            if left:
                gone = draw.choice(left)
                if not gone.deleting:
                    registry.apply(Delete(PERSISTENT_VOLUME_CLAIMS, gone.namespace, gone.name, gone.uid))
    settle(registry)
    check(registry)
    for each in registry.view.objects(PERSISTENT_VOLUMES):
        for write in registry.plan(WORLD[0], key_of(each)).writes:
            assert isinstance(write, EmitEvent)
        if claims.phase_of(each) == "Bound":
            ref = each["spec"]["claimRef"]
            found = registry.view.get(PERSISTENT_VOLUME_CLAIMS, ref["namespace"], ref["name"])
            assert found is not None
            assert claims.volume_of(found) == each["metadata"]["name"]
            assert claims.phase_of(found) == "Bound"

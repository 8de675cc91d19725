"""Kinds that show the stored objects of others: nothing is lost on the way there and back."""

import copy

from controller.kinds.autoscaling import V2, read_v1, write_v1
from controller.kinds.events import EVENT, NEW_EVENT
from controller.kinds.kind import Object


def autoscaler(**spec: object) -> Object:
    made: Object = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": 3, **spec},
        "status": {"currentReplicas": 1, "conditions": [{"type": "AbleToScale", "status": "True"}]},
    }
    V2.default(made)
    return made


def test_an_autoscaler_survives_being_read_and_written_as_v1() -> None:
    memory = {
        "type": "Resource",
        "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Mi"}},
    }
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
    for made in (autoscaler(), autoscaler(metrics=[cpu, memory], behavior={"scaleDown": {"selectPolicy": "Min"}})):
        older = copy.deepcopy(made)
        read_v1(older)
        assert "metrics" not in older["spec"]
        assert older["spec"]["targetCPUUtilizationPercentage"] in (50, 80)
        write_v1(older)
        assert older == made


def test_an_event_is_the_same_under_both_names() -> None:
    assert NEW_EVENT.stored is not None
    new: Object = {
        "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Act",
        "reason": "Why",
        "note": "text",
        "type": "Normal",
    }
    assert NEW_EVENT.validate_create(new) == []
    core = copy.deepcopy(new)
    assert NEW_EVENT.stored.write is not None
    assert NEW_EVENT.stored.read is not None
    NEW_EVENT.stored.write(core)
    assert (core["message"], core["involvedObject"]["name"], core["reportingComponent"]) == (
        "text",
        "p",
        "example.com/c",
    )
    assert EVENT.validate(core) == []
    NEW_EVENT.stored.read(core)
    assert {key: core[key] for key in new} == new
    cells = [column.cell(new, 0.0) for column in NEW_EVENT.columns]
    assert "pod/p" in cells
    missing = [error.path for error in NEW_EVENT.validate_create({**new, "action": "", "type": ""})]
    assert missing == ["action", "type"]

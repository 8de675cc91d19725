"""What admission makes of pods: runtime classes, tolerations of unready hosts."""

from typing import Any

import pytest

from controller.api.access import User
from controller.api.admission import AdmissionRequest, default_tolerations, runtime_class
from controller.api.status import ApiError
from controller.kinds.kind import Object, ResourceKey
from controller.kinds.registry import REGISTRY
from controller.store.entry import Entry, encode, key_for, make_entry

CLASSES: dict[str, Object] = {
    "plain": {"handler": "runc"},
    "heavy": {
        "handler": "kata",
        "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}},
        "scheduling": {
            "nodeSelector": {"kata": "yes"},
            "tolerations": [{"key": "kata", "operator": "Exists"}],
        },
    },
}


def lookup(resource: ResourceKey, namespace: str, name: str) -> Entry | None:
    assert resource == runtime_class.RUNTIME_CLASSES
    found = CLASSES.get(name)
    if found is None:
        return None
    stored = encode({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, **found})
    return make_entry(key_for(resource, "", name), stored, 1, lambda resource, obj: {})


def request(spec: Object, operation: Any = "CREATE") -> AdmissionRequest:
    kind = REGISTRY.lookup("", "v1", "pods")
    assert kind is not None
    pod = {"metadata": {"name": "p"}, "spec": spec}
    return AdmissionRequest(operation, kind, pod, None, User("u"), "", dry_run=False)


def admitted(spec: Object) -> Object:
    asked = request(spec)
    runtime_class.admit(asked, lookup)
    found: Object = asked.obj["spec"]
    return found


def test_a_runtime_class_completes_its_pods() -> None:
    assert admitted({}) == {}
    assert admitted({"runtimeClassName": "plain"}) == {"runtimeClassName": "plain"}
    heavy = admitted({"runtimeClassName": "heavy", "nodeSelector": {"disk": "ssd"}})
    assert heavy["overhead"] == {"cpu": "10m", "memory": "1Mi"}
    assert heavy["nodeSelector"] == {"disk": "ssd", "kata": "yes"}
    assert heavy["tolerations"] == [{"key": "kata", "operator": "Exists"}]
    assert admitted(dict(heavy)) == heavy


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"runtimeClassName": "none"}, 'pod rejected: RuntimeClass "none" not found'),
        ({"overhead": {"cpu": "1"}}, "without corresponding RuntimeClass"),
        ({"runtimeClassName": "plain", "overhead": {"cpu": "1"}}, "without corresponding RuntimeClass"),
        ({"runtimeClassName": "heavy", "overhead": {"cpu": "1"}}, "doesn't match"),
        ({"runtimeClassName": "heavy", "nodeSelector": {"kata": "no"}}, "conflict: runtimeClass.scheduling"),
    ],
)
def test_a_pod_that_does_not_fit_its_runtime_class_is_refused(spec: Object, why: str) -> None:
    with pytest.raises(ApiError) as refused:
        admitted(spec)
    assert (refused.value.code, why in refused.value.message) == (403, True), refused.value.message


def test_tolerations_written_anew_get_the_defaults_again() -> None:
    for operation in ("CREATE", "UPDATE"):
        asked = request({"tolerations": [{"key": "foo", "operator": "Exists"}]}, operation)
        default_tolerations.admit(asked, lookup)
        keys = [each["key"] for each in asked.obj["spec"]["tolerations"]]
        assert keys == ["foo", *default_tolerations.KEYS]

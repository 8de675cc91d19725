"""What may change in a pod through its subresources, and what may not."""

import copy

from controller.kinds.kind import Object, ResourceKey
from controller.kinds.registry import REGISTRY

POD = REGISTRY.by_key(ResourceKey("", "pods"))


def pod() -> Object:
    made: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {
            "nodeName": "host-1",
            "containers": [
                {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2"}}}
            ],
        },
    }
    POD.default(made)
    return made


def written(subresource: str, new: Object, old: Object) -> list[str]:
    rule = POD.subwrites[subresource]
    rule.confine(new, old)
    POD.default(new)
    return [error.path for error in POD.validate(new) + rule.validate(new, old)]


def debugger(**fields: object) -> Object:
    return {"name": "debug", "image": "busybox", "targetContainerName": "c", **fields}


def test_only_ephemeral_containers_come_through_their_subresource() -> None:
    old, new = pod(), pod()
    new["spec"]["nodeName"] = "host-2"
    new["spec"]["containers"][0]["image"] = "evil"
    new["spec"]["ephemeralContainers"] = [debugger()]
    assert written("ephemeralcontainers", new, old) == []
    assert (new["spec"]["nodeName"], new["spec"]["containers"]) == ("host-1", old["spec"]["containers"])
    assert [each["name"] for each in new["spec"]["ephemeralContainers"]] == ["debug"]


def test_ephemeral_containers_stay_as_they_are() -> None:
    old = pod()
    old["spec"]["ephemeralContainers"] = [debugger()]
    POD.default(old)
    assert written("ephemeralcontainers", pod(), old) == ["spec.ephemeralContainers"]
    other = copy.deepcopy(old)
    other["spec"]["ephemeralContainers"][0]["image"] = "other"
    assert written("ephemeralcontainers", other, old) == ["spec.ephemeralContainers"]


def test_ephemeral_containers_are_refused_elsewhere() -> None:
    new = pod()
    new["spec"]["ephemeralContainers"] = [debugger()]
    assert [error.path for error in POD.validate_create(new)] == ["spec.ephemeralContainers"]
    assert [error.path for error in POD.validate_update(new, pod())] == ["spec"]
    new["spec"]["ephemeralContainers"] = [debugger(ports=[{"containerPort": 1}], targetContainerName="none")]
    assert written("ephemeralcontainers", new, pod()) == [
        "spec.ephemeralContainers[0].ports",
        "spec.ephemeralContainers[0].targetContainerName",
    ]


def test_resize_changes_cpu_and_memory_and_nothing_else() -> None:
    old, new = pod(), pod()
    new["spec"]["nodeName"] = "host-2"
    new["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "4"
    assert written("resize", new, old) == []
    assert new["spec"]["nodeName"] == "host-1"
    assert new["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "4"}
    new["spec"]["containers"][0]["resources"]["limits"]["example.com/gpu"] = "1"
    assert "spec.containers[0].resources.limits" in written("resize", new, old)


def test_resize_keeps_the_class_of_service() -> None:
    new = pod()
    new["spec"]["containers"][0]["resources"] = {}
    paths = [f"spec.containers[0].resources.{kind}" for kind in ("requests", "limits")]
    assert written("resize", new, pod()) == [*paths, "spec"]


def test_resize_neither_renames_nor_adds_containers() -> None:
    new = pod()
    new["spec"]["containers"][0]["name"] = "other"
    assert written("resize", new, pod()) == ["spec.containers[0].name"]
    new = pod()
    new["spec"]["containers"] *= 2
    assert "spec.containers" in written("resize", new, pod())

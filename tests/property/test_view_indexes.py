"""Whatever happens in whatever order, an index answers as a scan of everything would."""

from hypothesis import given, settings
from hypothesis import strategies as st

from common.selectors import LabelSelector, from_label_selector
from controller.runtime import indexes
from controller.runtime.resources import PODS, SERVICES
from tests.support.model_registry import ModelRegistry

NAMES = st.sampled_from(["a", "b", "c"])
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]))
SELECTORS = st.builds(
    lambda labels, keys: from_label_selector(
        {"matchLabels": labels, "matchExpressions": [{"key": key, "operator": "Exists"} for key in keys]}
    ),
    LABELS,
    st.lists(st.sampled_from(["app", "tier"]), max_size=1),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_indexes_answer_as_scans_do(data: st.DataObject) -> None:
    registry = ModelRegistry()
    for _ in range(data.draw(st.integers(1, 12))):
        name, namespace = data.draw(NAMES), data.draw(st.sampled_from(["d", "e"]))
        resource = data.draw(st.sampled_from([PODS, SERVICES]))
        if data.draw(st.booleans()) or registry.get(resource, namespace, name) is None:
            owners = data.draw(st.sampled_from([[], [{"uid": "o", "controller": True}]]))
            meta = {"name": name, "namespace": namespace, "labels": data.draw(LABELS), "ownerReferences": owners}
            spec = {"nodeName": data.draw(NAMES)} if resource == PODS else {"selector": data.draw(LABELS)}
            phase = {"phase": data.draw(st.sampled_from(["Running", "Failed"]))}
            registry.put(resource, {"metadata": meta, "spec": spec, "status": phase})
        else:
            registry.remove(resource, namespace, name)
    view, pods = registry.view, registry.list(PODS)
    selector: LabelSelector = data.draw(SELECTORS)
    here = [entry for entry in pods if entry.namespace == "d"]
    assert view.selected_pods("d", selector) == [entry for entry in here if selector.matches(entry.labels)]
    assert view.orphans(PODS, "d") == [entry for entry in here if not entry.owners]
    assert view.owned("o") == [entry for entry in pods + registry.list(SERVICES) if entry.owners == ("o",)]
    assert view.pods_on("a") == [entry for entry in pods if entry.fields["spec.nodeName"] == "a"]
    assert view.group_size(indexes.finished()) == sum(e.fields["status.phase"] == "Failed" for e in pods)
    labels = data.draw(LABELS)
    wanted = {
        entry.name
        for entry in registry.list(SERVICES, "d")
        if entry.decode()["spec"]["selector"].items() <= labels.items()
    }
    assert wanted <= {entry.name for entry in view.selecting(SERVICES, "d", labels)}

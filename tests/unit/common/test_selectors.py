"""Selectors mean what they mean in Kubernetes."""

import pytest

from common.selectors import (
    EVERYTHING,
    NOTHING,
    InvalidSelector,
    from_label_selector,
    from_labels,
    parse_field_selector,
    parse_label_selector,
)

LABELS = {"app": "web", "tier": "front", "rank": "5", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier= front", True),
        ("app!=web", False),
        ("absent!=x", True),
        ("app in (web,api)", True),
        ("app notin (web,api)", False),
        ("absent notin (web)", True),
        ("app", True),
        ("!app", False),
        ("!absent", True),
        ("rank>4", True),
        ("rank<5", False),
        ("app>4", False),
        ("empty=", True),
        ("empty in (,a)", True),
        ("in=x", False),
        ("app in (web),!absent,tier!=back", True),
    ],
)
def test_query_syntax(text: str, matches: bool) -> None:
    assert parse_label_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    "text", ["a=b,", "=b", "a in b", "a in (b", "a in (b c)", "a b", "-a", "a=-b", "!", "a>x", ","]
)
def test_malformed_query_is_refused(text: str) -> None:
    with pytest.raises(InvalidSelector):
        parse_label_selector(text)


def test_object_syntax() -> None:
    selector = from_label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["front", "back"]},
                {"key": "absent", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector.matches(LABELS)
    assert not selector.matches({**LABELS, "absent": ""})
    assert str(selector) == "!absent,app=web,tier in (back,front)"


def test_absent_selects_nothing_and_empty_everything() -> None:
    assert from_label_selector(None) is NOTHING
    assert from_label_selector({}) == EVERYTHING
    assert from_labels({}) is NOTHING
    assert not NOTHING.matches({})
    assert EVERYTHING.matches({})


@pytest.mark.parametrize(
    "expression",
    [
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a", "operator": "Like", "values": ["x"]},
        {"key": "-a", "operator": "Exists"},
    ],
)
def test_malformed_object_is_refused(expression: dict[str, object]) -> None:
    with pytest.raises(InvalidSelector):
        from_label_selector({"matchExpressions": [expression]})


def test_field_selector() -> None:
    selector = parse_field_selector(r"metadata.name=a\,b,status.phase!=Running,spec.nodeName==")
    assert selector.matches({"metadata.name": "a,b", "status.phase": "Pending"})
    assert not selector.matches({"metadata.name": "a,b", "status.phase": "Running"})
    assert selector.required("metadata.name") == "a,b"
    assert selector.required("status.phase") is None
    assert selector.paths == ("metadata.name", "status.phase", "spec.nodeName")
    assert parse_field_selector("").matches({})


@pytest.mark.parametrize("text", ["a", "a=b=c", r"a=\x", "=b", "a=b\\"])
def test_malformed_field_selector_is_refused(text: str) -> None:
    with pytest.raises(InvalidSelector):
        parse_field_selector(text)

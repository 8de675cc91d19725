"""Selectors against a slow, obvious oracle; printing and parsing again changes nothing."""

from hypothesis import given
from hypothesis import strategies as st

from common.selectors import LabelSelector, Operator, Requirement, parse_label_selector

KEYS = st.sampled_from(["a", "b", "example.com/c"])
VALUES = st.sampled_from(["", "x", "y", "z"])
LABELS = st.dictionaries(KEYS, VALUES)


@st.composite
def requirements(draw: st.DrawFn) -> Requirement:
    operator = draw(st.sampled_from([Operator.IN, Operator.NOT_IN, Operator.EXISTS, Operator.DOES_NOT_EXIST]))
    values: tuple[str, ...] = ()
    if operator in (Operator.IN, Operator.NOT_IN):
        values = tuple(sorted(draw(st.sets(VALUES, min_size=1))))
    return Requirement(draw(KEYS), operator, values)


SELECTORS = st.lists(requirements(), max_size=4).map(lambda found: LabelSelector(tuple(found)))


@given(SELECTORS, LABELS)
def test_printed_and_parsed_again_it_selects_the_same(selector: LabelSelector, labels: dict[str, str]) -> None:
    assert parse_label_selector(str(selector)).matches(labels) is selector.matches(labels)


@given(SELECTORS, LABELS)
def test_agrees_with_set_algebra(selector: LabelSelector, labels: dict[str, str]) -> None:
    def one(each: Requirement) -> bool:
        have = {labels[each.key]} if each.key in labels else set()
        overlap = bool(have & set(each.values))
        return {
            Operator.IN: overlap,
            Operator.NOT_IN: not overlap,
            Operator.EXISTS: bool(have),
            Operator.DOES_NOT_EXIST: not have,
        }[each.operator]

    assert selector.matches(labels) is all(one(each) for each in selector.requirements)

"""Expressions of the Common Expression Language are told from what is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kinds.expressions import problem

GOOD = [
    "true",
    "object.metadata.namespace != 'kube-system'",
    '!(request.resource.group in ["", "apps"]) || size(object.spec.containers) <= 3',
    "has(self.a) ? self.a.b == oldSelf.a.b : self.c.all(x, x > -1.5e3 && x < 0x1F)",
    "self.items.map(i, {i.name: i.?weight.orValue(1u)}).size() % 2 == 0",
    "device.attributes[\"dra.example.com\"].model.matches(r'^A\\d+$')",
    "Object{spec: Object.spec{replicas: 3, template: Object.spec.template{}}}",
    "[?optional.of(1), 2,].exists_one(x, x == 2) && {?'a': optional.none()}.size() == 0",
    "variables.environment == 'prod' // a comment\n && b'bytes' != null",
    "self.`a.b` == '''it's'''",
    "- -1 + .5 > 2",
    "duration('1h') + timestamp(self.at) > .now",
]
BAD = [
    "",
    "... [] bad expression",
    "object.spec.replicas =< 3",
    "a &&",
    "a b",
    "(a",
    "[1, 2",
    "{a}",
    "a ? b",
    "'unfinished",
    "a.1",
    "for",
    "a # b",
    "f(,)",
    "a in",
    "if (a) { b }",
]


@pytest.mark.parametrize("text", GOOD)
def test_expressions(text: str) -> None:
    assert problem(text) == ""


@pytest.mark.parametrize("text", BAD)
def test_what_is_none(text: str) -> None:
    assert problem(text).startswith("compilation failed: ERROR: <input>:1:")


def test_the_place_is_told() -> None:
    assert problem("a &&\n  b c") == "compilation failed: ERROR: <input>:2:5: Syntax error: extraneous input 'c'"
    assert "recursion limit" in problem("(" * 1000 + "a" + ")" * 1000)


@given(st.text(alphabet="ab.1'\"`()[]{}?:,!-+<=& \n|/rin", max_size=40))
def test_any_text_is_judged(text: str) -> None:
    assert isinstance(problem(text), str)

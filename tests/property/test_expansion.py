"""``$(VAR)`` expansion: upstream's table, and what must hold for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spherelet.volumes.expansion import expand

VALUES = {"VAR_A": "A", "VAR_REF": "$(VAR_A)", "EMPTY": ""}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(VAR_A)", "A"),
        ("___$(VAR_A)___", "___A___"),
        ("$(VAR_REF)", "$(VAR_A)"),
        ("$$(VAR_A)_$(VAR_A)", "$(VAR_A)_A"),
        ("$$$(VAR_A)", "$A"),
        ("$(NONE)", "$(NONE)"),
        ("$(EMPTY)x", "x"),
        ("$VAR_A", "$VAR_A"),
        ("foo\\$(VAR_A)", "foo\\A"),
        ("$(VAR_A", "$(VAR_A"),
        ("a$", "a$"),
        ("$()", "$()"),
        ("%%$$", "%%$"),
    ],
)
def test_upstreams_cases(text: str, expected: str) -> None:
    assert expand(text, VALUES) == expected


@given(st.text(alphabet="ab$()X", max_size=40))
def test_never_fails_and_is_plain_without_a_dollar(text: str) -> None:
    assert expand(text.replace("$", ""), VALUES) == text.replace("$", "")
    expand(text, {"X": "$(X)"})

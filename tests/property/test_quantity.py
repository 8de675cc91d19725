"""Quantities: printing loses nothing, arithmetic is exact."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from common.quantity import NANO, Format, Quantity

_SCALE = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "m": Fraction(1, 1000), "": 1, "k": 1000, "M": 10**6}


@given(st.integers(-(10**24), 10**24), st.sampled_from([Format.DECIMAL_SI, Format.DECIMAL_EXPONENT]))
def test_decimal_round_trip(nanos: int, form: Format) -> None:
    assert Quantity.parse(str(Quantity(nanos, form))).nanos == nanos


@given(st.integers(-(2**62), 2**62))
def test_binary_round_trip(units: int) -> None:
    assert Quantity.parse(str(Quantity.of(units, Format.BINARY_SI))).value == units


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(sorted(_SCALE)))
def test_parse_agrees_with_exact_fractions(whole: int, thousandths: int, suffix: str) -> None:
    exact = (whole + Fraction(thousandths, 1000)) * _SCALE[suffix]
    assert Quantity.parse(f"{whole}.{thousandths:03}{suffix}").nanos == exact * NANO


@given(st.integers(), st.integers())
def test_sum_and_difference_are_inverse(left: int, right: int) -> None:
    assert (Quantity(left) + Quantity(right)) - Quantity(right) == Quantity(left)

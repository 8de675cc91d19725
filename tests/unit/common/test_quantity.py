"""Quantities read, compare and print as apimachinery's do."""

import pytest

from common.quantity import InvalidQuantity, Quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0.5", "500m"),
        ("1500m", "1500m"),
        ("2000m", "2"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1000k", "1M"),
        ("12e6", "12e6"),
        ("1E", "1E"),
        ("1E3", "1e3"),
        ("+5", "5"),
        ("-5Mi", "-5Mi"),
        (".5", "500m"),
        ("5.", "5"),
        ("0.1n", "1n"),
        ("100n", "100n"),
        ("0Gi", "0"),
    ],
)
def test_canonical_form(text: str, canonical: str) -> None:
    assert str(Quantity.parse(text)) == canonical


@pytest.mark.parametrize("text", ["", "1.2.3", "Gi", "1 Gi", "1GiB", "1K", "one", "1e", "--1", "1e+", "0x10"])
def test_malformed_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuantity, match="regular expression"):
        Quantity.parse(text)


def test_value_and_milli_round_up() -> None:
    assert Quantity.parse("1001m").value == 2
    assert Quantity.parse("1u").milli == 1
    assert Quantity.parse("-1500m").value == -1


def test_order_ignores_the_format() -> None:
    assert Quantity.parse("1Ki") == Quantity.parse("1024")
    assert Quantity.parse("1Ki") > Quantity.parse("1k")
    assert hash(Quantity.parse("1Ki")) == hash(Quantity.parse("1024"))


def test_huge_values_are_capped() -> None:
    assert Quantity.parse("1e999").value == 2**63 - 1

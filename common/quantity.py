"""Kubernetes resource quantities (apimachinery ``resource.Quantity``): parse, compute, compare, print.

Amounts are exact integers of nano units, the smallest that Kubernetes keeps: finer input is rounded away from
zero, as it does there. Pure.
"""

import re
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import lru_cache, total_ordering
from typing import Final

from common.errors import Terminal

NANO: Final = 10**9
_LIMIT: Final = (2**63 - 1) * NANO
"""Larger magnitudes are capped, as upstream does."""

_PATTERN: Final = re.compile(r"([+-]?)(\d+\.?\d*|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d{1,4})?")
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}
_BINARY_NAME: Final = {power: name for name, power in _BINARY.items()}
_DECIMAL_NAME: Final = {power: name for name, power in _DECIMAL.items()}


class InvalidQuantity(Terminal, ValueError):
    """The text is not a quantity; the message is the API's own."""


class Format(Enum):
    """How a quantity was written, and so how it is printed."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact amount. Equality and order look at the amount only, not at the format."""

    nanos: int
    format: Format = Format.DECIMAL_SI

    @staticmethod
    def parse(text: str | int | float) -> "Quantity":
        """Parse ``1500m``, ``2Gi``, ``12e6`` or a JSON number. Raises ``InvalidQuantity``."""
        return _parse(str(text))

    @staticmethod
    def of(units: int, format: Format = Format.DECIMAL_SI) -> "Quantity":
        """``units`` whole units (bytes, cores, pods)."""
        return Quantity(units * NANO, format)

    @property
    def value(self) -> int:
        """Whole units, rounded up (``Quantity.Value``)."""
        return -(-self.nanos // NANO)

    @property
    def milli(self) -> int:
        """Thousandths, rounded up (``Quantity.MilliValue``)."""
        return -(-self.nanos // (NANO // 1000))

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nanos + other.nanos, self.format if self.nanos else other.format)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nanos - other.nanos, self.format if self.nanos else other.format)

    def __eq__(self, other: object) -> bool:
        return self.nanos == other.nanos if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: "Quantity") -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __bool__(self) -> bool:
        return self.nanos != 0

    def __str__(self) -> str:
        """Canonical form: no fraction, the largest suffix that loses nothing."""
        if self.format is Format.BINARY_SI and abs(self.nanos) >= 1024 * NANO:
            number, power = self.value, 0
            while number % 1024 == 0 and power < 6:
                number, power = number // 1024, power + 1
            return f"{number}{_BINARY_NAME.get(power, '')}"
        number, power = self.nanos, -3
        while number and number % 1000 == 0 and power < 6:
            number, power = number // 1000, power + 1
        if not number:
            return "0"
        if self.format is Format.DECIMAL_EXPONENT:
            return f"{number}e{3 * power}" if power else str(number)
        return f"{number}{_DECIMAL_NAME[power]}"


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    found = _PATTERN.fullmatch(text)
    if found is None:
        raise InvalidQuantity(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    sign, digits, suffix = found[1], found[2], found[3] or ""
    if suffix in _BINARY:
        factor, form = Fraction(1024 ** _BINARY[suffix]), Format.BINARY_SI
    elif suffix in _DECIMAL:
        factor, form = Fraction(1000) ** _DECIMAL[suffix], Format.DECIMAL_SI
    else:
        factor, form = Fraction(10) ** int(suffix[1:]), Format.DECIMAL_EXPONENT
    exact = Fraction(digits) * factor * NANO
    nanos = min(-(-exact.numerator // exact.denominator), _LIMIT)
    return Quantity(-nanos if sign == "-" else nanos, form)


ZERO: Final = Quantity(0)

"""Resource quantities as the API reads and prints them (apimachinery ``resource.Quantity``)."""

import re
from decimal import ROUND_UP, Decimal, InvalidOperation
from typing import Final

PATTERN: Final = r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
_BINARY: Final = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_SPLIT: Final = re.compile(r"^([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(.*)$")
_EXPONENT: Final = re.compile(r"^[eE]([+-]?[0-9]{1,3})$")
_LENGTH_MAX: Final = 64


def parse(text: str | int | float) -> tuple[Decimal, str]:
    """Value and format (``binary``, ``decimal`` or ``exponent``). Raises ``ValueError``."""
    match = _SPLIT.match(str(text)[: _LENGTH_MAX + 1])
    if match is None or len(str(text)) > _LENGTH_MAX:
        raise ValueError(f"quantities must match the regular expression '{PATTERN}'")
    try:
        number, suffix = Decimal(match[1]), match[2]
    except InvalidOperation as err:
        raise ValueError(f"not a number: {match[1]}") from err
    if suffix in _BINARY:
        return number * 1024 ** _BINARY[suffix], "binary"
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix]), "decimal"
    exponent = _EXPONENT.match(suffix)
    if exponent is None:
        raise ValueError(f"quantities must match the regular expression '{PATTERN}'")
    return number.scaleb(int(exponent[1])), "exponent"


def value(text: str | int | float) -> Decimal:
    """Exact number that a quantity stands for (cores, bytes, pieces). Raises ``ValueError``."""
    return parse(text)[0]


def is_valid(text: str | int | float) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True


def canonical(text: str | int | float) -> str:
    """The API's canonical form: the largest suffix that leaves a whole number (``0.5`` -> ``500m``)."""
    try:
        number, form = parse(text)
    except ValueError:
        return str(text)
    if number and abs(number) < Decimal("1e-9"):
        number = Decimal("1e-9").copy_sign(number)
    number = number.quantize(Decimal("1e-9"), rounding=ROUND_UP) if number.adjusted() < 18 else number
    if number == 0:
        return "0"
    if form == "binary" and abs(number) >= 1024 and number == number.to_integral_value():
        return _binary(int(number))
    return _decimal(number, exponent=form == "exponent")


def _binary(number: int) -> str:
    best = ""
    for suffix, power in _BINARY.items():
        if number % 1024**power == 0:
            best = f"{number // 1024**power}{suffix}"
    return best or str(number)


def _decimal(number: Decimal, *, exponent: bool) -> str:
    for suffix, power in sorted(_DECIMAL.items(), key=lambda item: -item[1]):
        scaled = number.scaleb(-power)
        if scaled == scaled.to_integral_value():
            if exponent:
                return f"{int(scaled)}e{power}" if power else str(int(scaled))
            return f"{int(scaled)}{suffix}"
    return str(number)

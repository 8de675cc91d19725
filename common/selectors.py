"""Label and field selectors: parse the string syntax and ``metav1.LabelSelector``, then match. Pure.

Spec: apimachinery ``labels.Parse``, ``metav1.LabelSelectorAsSelector``, ``fields.ParseSelector``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from common.errors import Terminal


class InvalidSelector(Terminal, ValueError):
    """The selector is malformed; the message says where and what was expected."""


class Operator(Enum):
    """Operators of ``metav1.LabelSelectorRequirement`` and ``NodeSelectorRequirement``."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. ``values`` is sorted, so that equal requirements are equal."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        have = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return have in self.values if have is not None else False
            case Operator.NOT_IN:
                return have is None or have not in self.values
            case Operator.EXISTS:
                return have is not None
            case Operator.DOES_NOT_EXIST:
                return have is None
            case Operator.GT | Operator.LT:
                return _compare_integers(have, self.operator, self.values)

    def __str__(self) -> str:
        match self.operator:
            case Operator.IN:
                return f"{self.key}={self.values[0]}" if len(self.values) == 1 else f"{self.key} in ({self._joined})"
            case Operator.NOT_IN:
                return (
                    f"{self.key}!={self.values[0]}" if len(self.values) == 1 else f"{self.key} notin ({self._joined})"
                )
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"
            case Operator.GT:
                return f"{self.key}>{self.values[0]}"
            case Operator.LT:
                return f"{self.key}<{self.values[0]}"

    @property
    def _joined(self) -> str:
        return ",".join(self.values)


def _compare_integers(have: str | None, operator: Operator, values: Sequence[str]) -> bool:
    if have is None or len(values) != 1:
        return False
    try:
        left, right = int(have), int(values[0])
    except ValueError:
        return False
    return left > right if operator is Operator.GT else left < right


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """A conjunction of requirements, or nothing at all when ``nothing`` is set."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str]) -> bool:
        return not self.nothing and all(each.matches(labels) for each in self.requirements)

    @property
    def is_empty(self) -> bool:
        """True when everything matches."""
        return not self.requirements and not self.nothing

    def __str__(self) -> str:
        return ",".join(str(each) for each in sorted(self.requirements, key=lambda each: (each.key, str(each))))


EVERYTHING: Final = LabelSelector()
NOTHING: Final = LabelSelector(nothing=True)

_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_TOKEN: Final = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")


def is_label_value(text: str) -> bool:
    """At most 63 characters, alphanumeric at both ends, ``-_.`` between; may be empty."""
    return text == "" or _NAME.fullmatch(text) is not None


def is_qualified_name(text: str) -> bool:
    """A label or annotation key: ``name`` or ``dns.subdomain/name``."""
    prefix, slash, name = text.rpartition("/")
    if slash and (len(prefix) > 253 or _PREFIX.fullmatch(prefix) is None):
        return False
    return _NAME.fullmatch(name) is not None


def requirement(key: str, operator: str, values: Sequence[str] | None) -> Requirement:
    """Build one from the parts of a ``matchExpressions`` entry. Raises ``InvalidSelector``."""
    try:
        parsed = Operator(operator)
    except ValueError:
        raise InvalidSelector(f'"{operator}" is not a valid label selector operator') from None
    listed = tuple(sorted(set(values or ())))
    if parsed in (Operator.IN, Operator.NOT_IN) and not listed:
        raise InvalidSelector(f"values: must be specified when `operator` is '{operator}' (key {key})")
    if parsed in (Operator.EXISTS, Operator.DOES_NOT_EXIST) and listed:
        raise InvalidSelector(f"values: may not be specified when `operator` is '{operator}' (key {key})")
    if parsed in (Operator.GT, Operator.LT) and len(listed) != 1:
        raise InvalidSelector(f"values: exactly one integer is needed when `operator` is '{operator}' (key {key})")
    if not is_qualified_name(key):
        raise InvalidSelector(f'invalid label key "{key}": must be a qualified name such as app.kubernetes.io/name')
    return Requirement(key, parsed, listed)


def from_label_selector(selector: Mapping[str, Any] | None) -> LabelSelector:
    """``metav1.LabelSelector``: absent selects nothing, empty selects everything. Raises ``InvalidSelector``."""
    if selector is None:
        return NOTHING
    found = [Requirement(key, Operator.IN, (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for each in selector.get("matchExpressions") or ():
        found.append(requirement(each.get("key", ""), each.get("operator", ""), each.get("values")))
    return LabelSelector(tuple(sorted(found, key=lambda each: (each.key, each.operator.value, each.values))))


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """A plain map, as ``Service.spec.selector`` has. An absent or empty map selects nothing."""
    if not labels:
        return NOTHING
    return LabelSelector(tuple(Requirement(key, Operator.IN, (value,)) for key, value in sorted(labels.items())))


def parse_label_selector(text: str) -> LabelSelector:
    """The query syntax: ``a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1``. Raises ``InvalidSelector``."""
    return LabelSelector(tuple(_LabelParser(text).parse()))


class _LabelParser:
    """Recursive descent over tokens; one instance per text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def parse(self) -> list[Requirement]:
        found: list[Requirement] = []
        while self._peek() is not None:
            found.append(self._requirement())
            token = self._next()
            if token is None:
                break
            if token != ",":
                raise self._error(token, "',' or end of string")
            if self._peek() is None:
                raise self._error("", "a label key after ','")
        return found

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> str | None:
        token = self._peek()
        self._at += 1
        return token

    def _error(self, found: str | None, expected: str) -> InvalidSelector:
        return InvalidSelector(f"unable to parse requirement: found '{found or ''}', expected: {expected}")

    def _key(self) -> str:
        token = self._next()
        if token is None or token in ("=", "==", "!=", "(", ")", ",", "<", ">", "!"):
            raise self._error(token, "identifier")
        if not is_qualified_name(token):
            raise InvalidSelector(f'unable to parse requirement: <nil>: Invalid value: "{token}": not a label key')
        return token

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._next()
            return Requirement(self._key(), Operator.DOES_NOT_EXIST)
        key = self._key()
        match self._peek():
            case None | ",":
                return Requirement(key, Operator.EXISTS)
            case "=" | "==":
                self._next()
                return Requirement(key, Operator.IN, (self._value(),))
            case "!=":
                self._next()
                return Requirement(key, Operator.NOT_IN, (self._value(),))
            case "<" | ">" as sign:
                self._next()
                return self._integer(key, Operator.LT if sign == "<" else Operator.GT)
            case "in" | "notin" as word:
                self._next()
                return Requirement(key, Operator.IN if word == "in" else Operator.NOT_IN, self._values())
            case other:
                raise self._error(other, "in, notin, =, ==, !=, gt, lt")

    def _value(self) -> str:
        if self._peek() in (None, ","):
            return ""
        return self._checked(self._next() or "")

    def _checked(self, value: str) -> str:
        if not is_label_value(value):
            raise InvalidSelector(
                f'unable to parse requirement: values: Invalid value: "{value}": a valid label must be an empty string'
                " or consist of alphanumeric characters, '-', '_' or '.', at most 63 of them"
            )
        return value

    def _integer(self, key: str, operator: Operator) -> Requirement:
        value = self._next() or ""
        if re.fullmatch(r"-?\d+", value) is None:
            raise InvalidSelector(f"values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' it must be an integer")
        return Requirement(key, operator, (value,))

    def _values(self) -> tuple[str, ...]:
        if (token := self._next()) != "(":
            raise self._error(token, "'('")
        values: set[str] = set()
        expect_value = True
        while (token := self._next()) != ")":
            if token is None:
                raise self._error(token, "',' or ')'")
            if token == ",":
                if expect_value:
                    values.add("")
                expect_value = True
            elif expect_value:
                values.add(self._checked(token))
                expect_value = False
            else:
                raise self._error(token, "',' or ')'")
        if expect_value:
            values.add("")
        return tuple(sorted(values))


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """``path = value`` or, when ``negative``, ``path != value``."""

    path: str
    value: str
    negative: bool = False


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """A conjunction of field terms. An absent field counts as the empty string, as upstream."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(each.path, "") == each.value) is not each.negative for each in self.terms)

    def required(self, path: str) -> str | None:
        """The one value that ``path`` must have, so that an index can serve the request."""
        return next((each.value for each in self.terms if each.path == path and not each.negative), None)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(each.path for each in self.terms)


def parse_field_selector(text: str) -> FieldSelector:
    r"""``a.b=c,d!=e`` with ``\\``, ``\,`` and ``\=`` escaped in values. Raises ``InvalidSelector``."""
    terms: list[FieldTerm] = []
    for part in _split_unescaped(text):
        if not part.strip():
            continue
        found = re.match(r"\s*([^=!\\,\s]+)\s*(==|!=|=)", part)
        if found is None:
            raise InvalidSelector(f"invalid selector: '{text}'; can't understand '{part}'")
        terms.append(FieldTerm(found[1], _unescape(part[found.end() :], text), found[2] == "!="))
    return FieldSelector(tuple(terms))


def _split_unescaped(text: str) -> list[str]:
    parts: list[str] = []
    current: list[str] = []
    escaped = False
    for char in text:
        if char == "," and not escaped:
            parts.append("".join(current))
            current = []
            continue
        current.append(char)
        escaped = char == "\\" and not escaped
    parts.append("".join(current))
    return parts


def _unescape(value: str, text: str) -> str:
    found: list[str] = []
    escaped = False
    for char in value:
        if escaped:
            if char not in "\\,=":
                raise InvalidSelector(f"invalid field selector '{text}': unknown escape '\\{char}'")
            found.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "=":
            raise InvalidSelector(f"invalid field selector '{text}': unescaped '=' in a value")
        else:
            found.append(char)
    if escaped:
        raise InvalidSelector(f"invalid field selector '{text}': ends in a lone backslash")
    return "".join(found).strip()

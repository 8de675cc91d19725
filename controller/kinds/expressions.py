"""Whether text is an expression of the Common Expression Language: its syntax; nothing is evaluated or typed. Pure.

Spec: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax, with optional fields and elements.
"""

import re
from collections.abc import Callable
from typing import Final

from controller.kinds.rules import Errors, invalid

DEPTH_MAX: Final = 100
_TOKEN: Final = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>[bB]?(?:[rR](?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|"[^"\n]*"|'[^'\n]*')
        |\"\"\"(?:\\[\s\S]|[^\\])*?\"\"\"|'''(?:\\[\s\S]|[^\\])*?'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?|\d+[uU]?)
    |(?P<name>[_a-zA-Z][_a-zA-Z0-9]*)
    |(?P<quoted>`[^`\n]+`)
    |(?P<sign>\|\||&&|==|!=|<=|>=|[-+*/%!?:.,<>()\[\]{}])""",
    re.VERBOSE,
)
_RESERVED: Final = frozenset(
    (
        *("as", "break", "const", "continue", "else", "for", "function", "if", "import", "in", "let", "loop"),
        *("namespace", "package", "return", "var", "void", "while"),
    )
)
_BINARY: Final = frozenset(("||", "&&", "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%"))


class _Wrong(Exception):
    """Not an expression. Arguments: where (offset), why."""


def problem(text: str) -> str:
    """Why ``text`` is no expression, in the API's words; empty when it is one."""
    try:
        parser = _Parser(_tokens(text))
        parser.expression()
        parser.end()
    except _Wrong as wrong:
        at, why = wrong.args
        line = text.count("\n", 0, at) + 1
        column = at - (text.rfind("\n", 0, at) + 1) + 1
        return f"compilation failed: ERROR: <input>:{line}:{column}: Syntax error: {why}"
    return ""


def check(path: str, text: str) -> Errors:
    """The error of a field that holds an expression."""
    found = problem(text)
    return [invalid(path, text, found)] if found else []


_Token = tuple[str, str, int]
"""Kind, text, offset."""


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _Wrong(at, f"token recognition error at: '{text[at]}'")
        if match.lastgroup != "space":
            found.append((str(match.lastgroup), match.group(), at))
        at = match.end()
    return [*found, ("end", "<EOF>", len(text))]


class _Parser:
    """Recursive descent over tokens; a method per rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def expression(self) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _Wrong(self._tokens[self._at][2], f"expression recursion limit exceeded: {DEPTH_MAX}")
        self._operands()
        if self._take("?"):
            self._operands()
            self._need(":")
            self.expression()
        self._depth -= 1

    def end(self) -> None:
        if self._tokens[self._at][0] != "end":
            self._fail("extraneous input")

    def _operands(self) -> None:
        """Which operator binds strongest is no matter of whether it is one."""
        self._operand()
        while self._tokens[self._at][0] in ("sign", "name") and self._tokens[self._at][1] in _BINARY:
            self._at += 1
            self._operand()

    def _operand(self) -> None:
        while self._take("!") or self._take("-"):
            pass
        self._primary()
        while True:
            if self._take("."):
                self._take("?")
                self._field()
                if self._take("("):
                    self._listed(")", self.expression)
            elif self._take("["):
                self._take("?")
                self.expression()
                self._need("]")
            elif self._take("{"):
                self._listed("}", self._named)
            else:
                return

    def _primary(self) -> None:
        kind, text, _ = self._tokens[self._at]
        if kind in ("number", "text"):
            self._at += 1
        elif self._take("("):
            self.expression()
            self._need(")")
        elif self._take("["):
            self._listed("]", self._element)
        elif self._take("{"):
            self._listed("}", self._entry)
        else:
            self._take(".")
            kind, text, _ = self._tokens[self._at]
            if kind != "name" or text in _RESERVED:
                self._fail("mismatched input")
            self._at += 1
            if self._take("("):
                self._listed(")", self.expression)

    def _listed(self, closing: str, item: Callable[[], None]) -> None:
        while not self._take(closing):
            item()
            if not self._take(","):
                self._need(closing)
                return

    def _element(self) -> None:
        self._take("?")
        self.expression()

    def _entry(self) -> None:
        self._element()
        self._need(":")
        self.expression()

    def _named(self) -> None:
        self._take("?")
        self._field()
        self._need(":")
        self.expression()

    def _field(self) -> None:
        if self._tokens[self._at][0] not in ("name", "quoted"):
            self._fail("no viable alternative at input")
        self._at += 1

    def _take(self, sign: str) -> bool:
        if self._tokens[self._at][:2] != ("sign", sign):
            return False
        self._at += 1
        return True

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            self._fail(f"missing '{sign}' at")

    def _fail(self, why: str) -> None:
        _, text, at = self._tokens[self._at]
        raise _Wrong(at, f"{why} '{text}'")

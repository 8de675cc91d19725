"""``$(VAR)`` references in environment, commands and subPathExpr. Pure."""

from collections.abc import Mapping


def expand(text: str, values: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by its value; ``$$`` stands for ``$``; a reference to nothing stays as it is."""
    out: list[str] = []
    position = 0
    while position < len(text):
        sign = text.find("$", position)
        if sign < 0 or sign + 1 >= len(text):
            out.append(text[position:])
            break
        out.append(text[position:sign])
        following = text[sign + 1]
        if following == "$":
            out.append("$")
            position = sign + 2
        elif following == "(":
            end = text.find(")", sign + 2)
            if end < 0:
                out.append("$(")
                position = sign + 2
                continue
            name = text[sign + 2 : end]
            out.append(values.get(name, f"$({name})"))
            position = end + 1
        else:
            out.append("$" + following)
            position = sign + 2
    return "".join(out)

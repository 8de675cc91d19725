"""Validation shared by all kinds, in apimachinery's words: names, labels, selectors, numbers, quantities.

Every function returns the list of what is wrong; an empty list is a pass. ``path`` is the field's path as printed.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from common.quantity import InvalidQuantity, Quantity
from controller.kinds.kind import FieldError

Errors = list[FieldError]

_LABEL_FMT: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_FMT: Final = rf"{_LABEL_FMT}(\.{_LABEL_FMT})*"
_QUALIFIED_FMT: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL: Final = re.compile(_LABEL_FMT)
_LABEL_1035: Final = re.compile("[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN: Final = re.compile(_SUBDOMAIN_FMT)
_QUALIFIED: Final = re.compile(_QUALIFIED_FMT)
_PORT_NAME: Final = re.compile("[-a-z0-9]+")
_ENV_NAME: Final = re.compile("[ -<>-~]+")
_CONFIG_KEY: Final = re.compile("[-._a-zA-Z0-9]+")

SUBDOMAIN_MESSAGE: Final = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
LABEL_MESSAGE: Final = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
    "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
LABEL_1035_MESSAGE: Final = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
QUALIFIED_MESSAGE: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LABEL_VALUE_MESSAGE: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
CONFIG_KEY_MESSAGE: Final = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  "
    "or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
IMMUTABLE: Final = "field is immutable"
NON_NEGATIVE: Final = "must be greater than or equal to 0"
PORT_RANGE: Final = "must be between 1 and 65535, inclusive"


def required(path: str, detail: str = "") -> FieldError:
    return FieldError("FieldValueRequired", path, detail)


def invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", path, detail, value)


def forbidden(path: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", path, detail)


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError("FieldValueDuplicate", path, "", value)


def not_found(path: str, value: Any) -> FieldError:
    return FieldError("FieldValueNotFound", path, "", value)


def not_supported(path: str, value: Any, allowed: Iterable[str]) -> FieldError:
    listed = ", ".join(f'"{item}"' for item in sorted(allowed))
    return FieldError("FieldValueNotSupported", path, f"supported values: {listed}", value)


def one_of(path: str, value: Any, allowed: Iterable[str], *, need: bool = True) -> Errors:
    """``value`` must be one of ``allowed``; absent is fine unless ``need``."""
    if value in (None, ""):
        return [required(path)] if need else []
    return [] if value in allowed else [not_supported(path, value, allowed)]


# ---- names ---------------------------------------------------------------------------------------------------


def subdomain_problems(name: str) -> list[str]:
    """What keeps ``name`` from being a DNS-1123 subdomain."""
    if len(name) > 253:
        return ["must be no more than 253 characters"]
    return [] if _SUBDOMAIN.fullmatch(name) else [SUBDOMAIN_MESSAGE]


def label_problems(name: str) -> list[str]:
    """What keeps ``name`` from being a DNS-1123 label."""
    if len(name) > 63:
        return ["must be no more than 63 characters"]
    return [] if _LABEL.fullmatch(name) else [LABEL_MESSAGE]


def label_1035_problems(name: str) -> list[str]:
    """What keeps ``name`` from being a DNS-1035 label (service names before 1.34 and still by default)."""
    if len(name) > 63:
        return ["must be no more than 63 characters"]
    return [] if _LABEL_1035.fullmatch(name) else [LABEL_1035_MESSAGE]


def path_segment_problems(name: str) -> list[str]:
    """RBAC objects may have any name that is one path segment."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in name]


def qualified_problems(key: str) -> list[str]:
    """What keeps ``key`` from being a label key."""
    prefix, slash, name = key.partition("/") if key.count("/") == 1 else ("", "", key)
    problems: list[str] = []
    if key.count("/") > 1:
        return [f"a qualified name {QUALIFIED_MESSAGE[10:]} with an optional DNS subdomain prefix and '/'"]
    if slash:
        if not prefix:
            problems.append("prefix part must be non-empty")
        problems += [f"prefix part {text}" for text in subdomain_problems(prefix)] if prefix else []
    if not name:
        problems.append("name part must be non-empty")
    elif len(name) > 63:
        problems.append("name part must be no more than 63 characters")
    if not _QUALIFIED.fullmatch(name):
        problems.append(QUALIFIED_MESSAGE)
    return problems


def label_value_problems(value: str) -> list[str]:
    if len(value) > 63:
        return ["must be no more than 63 characters"]
    return [] if value == "" or _QUALIFIED.fullmatch(value) else [LABEL_VALUE_MESSAGE]


def port_name_problems(name: str) -> list[str]:
    """What keeps ``name`` from being an IANA service name."""
    problems: list[str] = []
    if len(name) > 15:
        problems.append("must be no more than 15 characters")
    if not _PORT_NAME.fullmatch(name):
        problems.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any(char.isalpha() for char in name):
        problems.append("must contain at least one letter (a-z)")
    if "--" in name:
        problems.append("must not contain consecutive hyphens")
    if name[:1] == "-" or name[-1:] == "-":
        problems.append("must not begin or end with a hyphen")
    return problems


def env_name_problems(name: str) -> list[str]:
    """Relaxed rule of 1.34: any printable ASCII but ``=``."""
    if not name:
        return ["environment variable name must not be empty"]
    if _ENV_NAME.fullmatch(name):
        return []
    return [
        "a valid environment variable name must consist only of printable ASCII characters other than '=' "
        "(e.g. 'my.env-name',  or 'MY_ENV.NAME',  or 'MyEnvName1', regex used for validation is '[ -<>-~]+')"
    ]


def config_key_problems(key: str) -> list[str]:
    if len(key) > 253:
        return ["must be no more than 253 characters"]
    if not _CONFIG_KEY.fullmatch(key):
        return [CONFIG_KEY_MESSAGE]
    if key == "." or key == ".." or key.startswith(".."):
        return [f"must not be '{key}'" if key in (".", "..") else "must not start with '..'"]
    return []


def name(path: str, value: Any, problems: Callable[[str], list[str]], *, need: bool = True) -> Errors:
    """A name field judged by ``problems``; empty is ``Required``."""
    if not value:
        return [required(path)] if need else []
    return [invalid(path, value, text) for text in problems(value)]


# ---- metadata ------------------------------------------------------------------------------------------------

_ANNOTATIONS_BYTES_MAX: Final = 256 * 1024


def labels(path: str, found: Mapping[str, Any] | None) -> Errors:
    errors: Errors = []
    for key, value in (found or {}).items():
        errors += [invalid(path, key, text) for text in qualified_problems(key)]
        errors += [invalid(path, value, text) for text in label_value_problems(value)]
    return errors


def annotations(path: str, found: Mapping[str, Any] | None) -> Errors:
    errors: Errors = []
    size = 0
    for key, value in (found or {}).items():
        errors += [invalid(path, key, text) for text in qualified_problems(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > _ANNOTATIONS_BYTES_MAX:
        errors.append(FieldError("FieldValueTooLong", path, f"may not be more than {_ANNOTATIONS_BYTES_MAX} bytes", ""))
    return errors


# ---- selectors -----------------------------------------------------------------------------------------------


def label_selector(path: str, selector: Mapping[str, Any] | None) -> Errors:
    """``ValidateLabelSelector``."""
    errors = labels(f"{path}.matchLabels", (selector or {}).get("matchLabels"))
    for index, term in enumerate((selector or {}).get("matchExpressions") or []):
        here, values = f"{path}.matchExpressions[{index}]", term.get("values") or []
        match term.get("operator"):
            case "In" | "NotIn":
                if not values:
                    errors.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
            case "Exists" | "DoesNotExist":
                if values:
                    detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                    errors.append(forbidden(f"{here}.values", detail))
            case other:
                errors.append(invalid(f"{here}.operator", other, "not a valid selector operator"))
        errors += [invalid(f"{here}.key", term.get("key"), text) for text in qualified_problems(term.get("key") or "")]
        for position, value in enumerate(values):
            errors += [invalid(f"{here}.values[{position}]", value, text) for text in label_value_problems(value)]
    return errors


def selects(selector: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    """Whether a valid ``metav1.LabelSelector`` matches these labels."""
    if any(found.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for term in selector.get("matchExpressions") or []:
        have, values = found.get(term["key"]), term.get("values") or []
        match term["operator"]:
            case "In":
                good = have in values
            case "NotIn":
                good = have not in values
            case "Exists":
                good = have is not None
            case _:
                good = have is None
        if not good:
            return False
    return True


# ---- numbers and addresses -----------------------------------------------------------------------------------


def non_negative(path: str, value: Any) -> Errors:
    return [invalid(path, value, NON_NEGATIVE)] if isinstance(value, int) and value < 0 else []


def port_number(path: str, value: Any) -> Errors:
    return [] if isinstance(value, int) and 1 <= value <= 65535 else [invalid(path, value, PORT_RANGE)]


def port_number_or_name(path: str, value: Any) -> Errors:
    if isinstance(value, str):
        return [invalid(path, value, text) for text in port_name_problems(value)]
    return port_number(path, value)


def address(path: str, value: str) -> Errors:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return [invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")]
    return []


def cidr(path: str, value: str) -> Errors:
    try:
        if "/" not in value:
            raise ValueError
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return [invalid(path, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")]
    return []


def quantity(path: str, value: Any) -> Errors:
    """A parseable quantity that is not negative."""
    try:
        amount = Quantity.parse(value)
    except InvalidQuantity as err:
        return [invalid(path, value, str(err))]
    return [invalid(path, value, NON_NEGATIVE)] if amount.nanos < 0 else []


def int_or_percent(path: str, value: Any) -> Errors:
    """A non-negative integer or a percentage such as ``25%``."""
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]+%", value):
            return []
        detail = (
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
            "regex used for validation is '[0-9]+%')"
        )
        return [invalid(path, value, detail)]
    return non_negative(path, value)


def immutable(path: str, new: Any, old: Any) -> Errors:
    return [] if new == old else [invalid(path, new, IMMUTABLE)]

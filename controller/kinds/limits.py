"""ResourceQuotas and LimitRanges: defaults, validation, columns. What they do is admission's."""

from typing import Final

from common.quantity import Quantity
from controller.kinds import rules
from controller.kinds.columns import AGE, at, computed, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid

_SCOPES: Final = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)
_OPPOSITES: Final = (frozenset(("BestEffort", "NotBestEffort")), frozenset(("Terminating", "NotTerminating")))
_OF_PODS: Final = frozenset(
    (
        *("cpu", "limits.cpu", "limits.memory", "memory", "pods", "requests.cpu", "requests.memory"),
        *("ephemeral-storage", "limits.ephemeral-storage", "requests.ephemeral-storage"),
    )
)
_OF_CLAIMS: Final = frozenset(("persistentvolumeclaims", "requests.storage"))
_COUNTED: Final = frozenset(
    (
        *("configmaps", "replicationcontrollers", "resourcequotas", "secrets", "services"),
        *("services.loadbalancers", "services.nodeports"),
    )
)
_TYPES: Final = ("Container", "PersistentVolumeClaim", "Pod")
_OPERATORS: Final = ("DoesNotExist", "Exists", "In", "NotIn")


def _validate_quota(quota: Object) -> Errors:
    spec = quota.get("spec") or {}
    errors: Errors = []
    for name, amount in (spec.get("hard") or {}).items():
        errors += rules.quantity(f"spec.hard[{name}]", amount)
        errors += [invalid(f"spec.hard[{name}]", name, text) for text in rules.qualified_problems(name)]
    scopes = spec.get("scopes") or []
    for index, scope in enumerate(scopes):
        errors += rules.one_of(f"spec.scopes[{index}]", scope, _SCOPES)
    for scope in scopes:
        strange = sorted(set(spec.get("hard") or {}) & (_OF_PODS | _OF_CLAIMS | _COUNTED) - _scoped(scope))
        if strange:
            errors.append(invalid("spec.scopes", scopes, f"unsupported scope applied to resource {', '.join(strange)}"))
    for pair in _OPPOSITES:
        if pair <= set(scopes):
            errors.append(invalid("spec.scopes", scopes, "conflicting scopes"))
    for index, term in enumerate(dig(spec, "scopeSelector.matchExpressions", [])):
        here = f"spec.scopeSelector.matchExpressions[{index}]"
        errors += rules.one_of(f"{here}.scopeName", term.get("scopeName"), _SCOPES)
        errors += rules.one_of(f"{here}.operator", term.get("operator"), _OPERATORS)
        if term.get("operator") in ("In", "NotIn") and not term.get("values"):
            errors.append(
                rules.required(f"{here}.values", "must be at least one value when `operator` is 'In' or 'NotIn'")
            )
    return errors


def _scoped(scope: str) -> frozenset[str]:
    """What a quota of this scope may limit: only pods have most scopes, and pods without requests use no amounts."""
    if scope == "BestEffort":
        return frozenset(("pods",))
    return _OF_CLAIMS if scope == "VolumeAttributesClass" else _OF_PODS


def _validate_quota_update(quota: Object, old: Object) -> Errors:
    return rules.immutable("spec.scopes", sorted(dig(quota, "spec.scopes", [])), sorted(dig(old, "spec.scopes", [])))


def _request_cell(quota: Object) -> str:
    return _cell(quota, limits=False)


def _limit_cell(quota: Object) -> str:
    return _cell(quota, limits=True)


def _cell(quota: Object, *, limits: bool) -> str:
    hard, used = dig(quota, "status.hard", {}), dig(quota, "status.used", {})
    names = sorted(name for name in hard if name.startswith("limits.") is limits)
    return ", ".join(f"{name}: {used.get(name, '0')}/{hard[name]}" for name in names)


def _default_range(found: Object) -> None:
    """``SetDefaults_LimitRangeItem``: what is said of one bound stands in for others that are not said."""
    for item in dig(found, "spec.limits", []):
        if item.get("type") != "Container":
            continue
        _lend(item, "default", item.get("max"))
        _lend(item, "defaultRequest", item.get("default"))
        _lend(item, "defaultRequest", item.get("min"))


def _lend(item: Object, field: str, source: Object | None) -> None:
    if source:
        item[field] = {**source, **(item.get(field) or {})}


def _validate_range(found: Object) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for index, item in enumerate(dig(found, "spec.limits", [])):
        here, kind = f"spec.limits[{index}]", item.get("type")
        errors += rules.one_of(f"{here}.type", kind, _TYPES)
        if kind in seen:
            errors.append(rules.duplicate(f"{here}.type", kind))
        seen.add(str(kind))
        broken: Errors = []
        for field in ("min", "max", "default", "defaultRequest", "maxLimitRequestRatio"):
            for name, amount in (item.get(field) or {}).items():
                broken += rules.quantity(f"{here}.{field}[{name}]", amount)
        if kind == "Pod":
            errors += [
                forbidden(f"{here}.{field}", "may not be specified when `type` is 'Pod'")
                for field in ("default", "defaultRequest")
                if item.get(field)
            ]
        if kind == "PersistentVolumeClaim" and not {"storage"} & {*(item.get("min") or {}), *(item.get("max") or {})}:
            errors.append(
                rules.required(here, "either minimum or maximum storage value is required, but neither was provided")
            )
        errors += broken or _order(item, here)
    return errors


_ORDER: Final = (
    ("min", "max"),
    ("min", "defaultRequest"),
    ("min", "default"),
    ("defaultRequest", "max"),
    ("defaultRequest", "default"),
    ("default", "max"),
)
_WORDS: Final = {
    "min": "min value",
    "max": "max value",
    "default": "default value",
    "defaultRequest": "default request value",
}


def _order(item: Object, path: str) -> Errors:
    errors: Errors = []
    for lower, upper in _ORDER:
        low, high = item.get(lower) or {}, item.get(upper) or {}
        for name in sorted(set(low) & set(high)):
            if Quantity.parse(low[name]) > Quantity.parse(high[name]):
                detail = f"{_WORDS[lower]} {low[name]} is greater than {_WORDS[upper]} {high[name]}"
                errors.append(invalid(f"{path}.{lower}[{name}]", low[name], detail))
    for name, ratio in (item.get("maxLimitRequestRatio") or {}).items():
        if Quantity.parse(ratio) < Quantity.of(1):
            errors.append(invalid(f"{path}.maxLimitRequestRatio[{name}]", ratio, f"ratio {ratio} is less than 1"))
    return errors


RESOURCE_QUOTA: Final = Kind(
    group="",
    version="v1",
    kind="ResourceQuota",
    plural="resourcequotas",
    schema="io.k8s.api.core.v1.ResourceQuota",
    singular="resourcequota",
    short_names=("quota",),
    subresources=("status",),
    columns=(computed("Request", _request_cell), computed("Limit", _limit_cell), AGE),
    generation_fields=(),
    validate=_validate_quota,
    validate_update=_validate_quota_update,
)

LIMIT_RANGE: Final = Kind(
    group="",
    version="v1",
    kind="LimitRange",
    plural="limitranges",
    schema="io.k8s.api.core.v1.LimitRange",
    singular="limitrange",
    short_names=("limits",),
    columns=(at("Created At", "metadata.creationTimestamp"),),
    generation_fields=(),
    default=_default_range,
    validate=_validate_range,
)

KINDS: Final = (RESOURCE_QUOTA, LIMIT_RANGE)

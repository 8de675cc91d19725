"""Roles, cluster roles and their bindings."""

from collections.abc import Mapping
from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, at, computed
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, invalid, not_supported, required

GROUP: Final = "rbac.authorization.k8s.io"
_PREFIX: Final = "io.k8s.api.rbac.v1."


def _validate_role(role: Object) -> Errors:
    return _validate_rules(role, namespaced=True)


def _validate_cluster_role(role: Object) -> Errors:
    errors = _validate_rules(role, namespaced=False)
    aggregation = role.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        if not selectors:
            errors.append(
                required(
                    "aggregationRule.clusterRoleSelectors",
                    "at least one clusterRoleSelector required if aggregationRule is non-nil",
                )
            )
        for index, selector in enumerate(selectors):
            errors += rules.label_selector(f"aggregationRule.clusterRoleSelectors[{index}]", selector)
    return errors


def _validate_rules(role: Object, *, namespaced: bool) -> Errors:
    errors: Errors = []
    for index, rule in enumerate(role.get("rules") or []):
        here = f"rules[{index}]"
        if not rule.get("verbs"):
            errors.append(required(f"{here}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid(f"{here}.nonResourceURLs", rule["nonResourceURLs"], detail))
            continue
        if not rule.get("apiGroups"):
            errors.append(required(f"{here}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            errors.append(required(f"{here}.resources", "resource rules must supply at least one resource"))
    return errors


def _default_binding(binding: Object) -> None:
    ref = binding.setdefault("roleRef", {})
    if not ref.get("apiGroup"):
        ref["apiGroup"] = GROUP
    for subject in binding.get("subjects") or []:
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = GROUP


def _validate_binding(binding: Object) -> Errors:
    return _validate_ref(binding, ("ClusterRole", "Role"), namespaced=True)


def _validate_cluster_binding(binding: Object) -> Errors:
    return _validate_ref(binding, ("ClusterRole",), namespaced=False)


def _validate_ref(binding: Object, kinds: tuple[str, ...], *, namespaced: bool) -> Errors:
    ref: Mapping[str, Any] = binding.get("roleRef") or {}
    errors: Errors = []
    if ref.get("apiGroup") != GROUP:
        errors.append(not_supported("roleRef.apiGroup", ref.get("apiGroup"), (GROUP,)))
    if ref.get("kind") not in kinds:
        errors.append(not_supported("roleRef.kind", ref.get("kind") or "", kinds))
    errors += rules.name("roleRef.name", ref.get("name"), rules.path_segment_problems)
    for index, subject in enumerate(binding.get("subjects") or []):
        here, kind, group = f"subjects[{index}]", subject.get("kind"), subject.get("apiGroup") or ""
        if not subject.get("name"):
            errors.append(required(f"{here}.name"))
        if kind == "ServiceAccount":
            if subject.get("name"):
                errors += rules.name(f"{here}.name", subject["name"], rules.subdomain_problems)
            if group:
                errors.append(not_supported(f"{here}.apiGroup", group, ("",)))
            if not subject.get("namespace"):
                errors.append(required(f"{here}.namespace"))
        elif kind in ("User", "Group"):
            if group != GROUP:
                errors.append(not_supported(f"{here}.apiGroup", group, (GROUP,)))
        else:
            errors.append(not_supported(f"{here}.kind", kind or "", ("Group", "ServiceAccount", "User")))
    return errors


def _validate_binding_update(binding: Object, old: Object) -> Errors:
    if binding.get("roleRef") != old.get("roleRef"):
        return [invalid("roleRef", binding.get("roleRef"), "cannot change roleRef")]
    return []


def _subjects(kind: str) -> Any:
    def cell(binding: Object) -> str:
        found = [s for s in binding.get("subjects") or [] if s.get("kind") == kind]
        if kind == "ServiceAccount":
            return ", ".join(f"{s.get('namespace')}/{s.get('name')}" for s in found)
        return ", ".join(str(s.get("name")) for s in found)

    return cell


def _role_ref(binding: Object) -> str:
    ref = binding.get("roleRef") or {}
    return f"{ref.get('kind')}/{ref.get('name')}"


_ROLE_COLUMNS: Final = (at("Created At", "metadata.creationTimestamp"),)
_BINDING_COLUMNS: Final[tuple[Column, ...]] = (
    computed("Role", _role_ref),
    AGE,
    computed("Users", _subjects("User"), priority=1),
    computed("Groups", _subjects("Group"), priority=1),
    computed("ServiceAccounts", _subjects("ServiceAccount"), priority=1),
)

ROLE: Final = Kind(
    group=GROUP,
    version="v1",
    kind="Role",
    plural="roles",
    schema=f"{_PREFIX}Role",
    singular="role",
    columns=_ROLE_COLUMNS,
    generation_fields=(),
    validate=_validate_role,
)
CLUSTER_ROLE: Final = Kind(
    group=GROUP,
    version="v1",
    kind="ClusterRole",
    plural="clusterroles",
    schema=f"{_PREFIX}ClusterRole",
    namespaced=False,
    singular="clusterrole",
    columns=_ROLE_COLUMNS,
    generation_fields=(),
    validate=_validate_cluster_role,
)
ROLE_BINDING: Final = Kind(
    group=GROUP,
    version="v1",
    kind="RoleBinding",
    plural="rolebindings",
    schema=f"{_PREFIX}RoleBinding",
    singular="rolebinding",
    columns=_BINDING_COLUMNS,
    generation_fields=(),
    default=_default_binding,
    validate=_validate_binding,
    validate_update=_validate_binding_update,
)
CLUSTER_ROLE_BINDING: Final = Kind(
    group=GROUP,
    version="v1",
    kind="ClusterRoleBinding",
    plural="clusterrolebindings",
    schema=f"{_PREFIX}ClusterRoleBinding",
    namespaced=False,
    singular="clusterrolebinding",
    columns=_BINDING_COLUMNS,
    generation_fields=(),
    default=_default_binding,
    validate=_validate_cluster_binding,
    validate_update=_validate_binding_update,
)

KINDS: Final = (ROLE, CLUSTER_ROLE, ROLE_BINDING, CLUSTER_ROLE_BINDING)

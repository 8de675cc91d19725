"""Admission webhooks and policies as objects: defaults, validation, columns. Nothing asks them yet.

Spec: kube ``pkg/apis/admissionregistration``, ``v1/defaults.go`` and ``validation``.
"""

from collections.abc import Callable
from typing import Any, Final

from controller.kinds import expressions, rules
from controller.kinds.columns import AGE, UNKNOWN, at, computed, count, dig
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, invalid, required

GROUP: Final = "admissionregistration.k8s.io"
_FAILURE: Final = ("Fail", "Ignore")
_MATCH: Final = ("Equivalent", "Exact")
_SCOPES: Final = ("*", "Cluster", "Namespaced")
_OPERATIONS: Final = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_EFFECTS: Final = ("None", "NoneOnDryRun")
_TIMEOUT_S: Final = 10
_TIMEOUT_S_MAX: Final = 30


def _default_match(match: Object, rules_at: str) -> None:
    """What webhooks and policies match: everything that is not excluded."""
    match["matchPolicy"] = match.get("matchPolicy") or "Equivalent"
    match.setdefault("namespaceSelector", {})
    match.setdefault("objectSelector", {})
    for rule in match.get(rules_at) or []:
        rule["scope"] = rule.get("scope") or "*"


def _default_webhooks(mutating: bool) -> Callable[[Object], None]:
    def default(configuration: Object) -> None:
        for webhook in configuration.get("webhooks") or []:
            webhook["failurePolicy"] = webhook.get("failurePolicy") or "Fail"
            webhook.setdefault("timeoutSeconds", _TIMEOUT_S)
            _default_match(webhook, "rules")
            service = dig(webhook, "clientConfig.service")
            if service is not None:
                service.setdefault("port", 443)
            if mutating:
                webhook["reinvocationPolicy"] = webhook.get("reinvocationPolicy") or "Never"

    return default


def _validate_webhooks(configuration: Object) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for index, webhook in enumerate(configuration.get("webhooks") or []):
        here, name = f"webhooks[{index}]", str(webhook.get("name") or "")
        if name in seen:
            errors.append(rules.duplicate(f"{here}.name", name))
        seen.add(name)
        errors += _webhook(webhook, name, here)
    return errors


def _webhook(webhook: Object, name: str, path: str) -> Errors:
    errors = rules.name(f"{path}.name", name, rules.subdomain_problems)
    if name and not errors and name.count(".") < 2:
        errors.append(
            invalid(f"{path}.name", name, "should be a domain with at least three segments separated by dots")
        )
    client = webhook.get("clientConfig") or {}
    if (client.get("url") is None) == (client.get("service") is None):
        errors.append(required(f"{path}.clientConfig", "exactly one of url or service is required"))
    elif client.get("service") is not None:
        service = client["service"]
        errors += [
            required(f"{path}.clientConfig.service.{key}") for key in ("name", "namespace") if not service.get(key)
        ]
        errors += rules.port_number(f"{path}.clientConfig.service.port", service.get("port"))
    elif not str(client["url"]).startswith("https://"):
        errors.append(invalid(f"{path}.clientConfig.url", client["url"], "'https' is the only allowed URL scheme"))
    errors += rules.one_of(f"{path}.sideEffects", webhook.get("sideEffects"), _EFFECTS)
    errors += rules.one_of(f"{path}.failurePolicy", webhook.get("failurePolicy"), _FAILURE)
    if not webhook.get("admissionReviewVersions"):
        errors.append(required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1"))
    seconds = webhook.get("timeoutSeconds")
    if not isinstance(seconds, int) or not 1 <= seconds <= _TIMEOUT_S_MAX:
        errors.append(invalid(f"{path}.timeoutSeconds", seconds, "the timeout value must be between 1 and 30 seconds"))
    return errors + _match(webhook, path, "rules") + _conditions(webhook, path)


def _match(match: Object, path: str, rules_at: str) -> Errors:
    errors = rules.one_of(f"{path}.matchPolicy", match.get("matchPolicy"), _MATCH)
    for key in ("namespaceSelector", "objectSelector"):
        errors += rules.label_selector(f"{path}.{key}", match.get(key))
    for index, rule in enumerate(match.get(rules_at) or []):
        here = f"{path}.{rules_at}[{index}]"
        errors += [
            required(f"{here}.{key}")
            for key in ("apiGroups", "apiVersions", "operations", "resources")
            if not rule.get(key)
        ]
        for position, operation in enumerate(rule.get("operations") or []):
            errors += rules.one_of(f"{here}.operations[{position}]", operation, _OPERATIONS)
        errors += rules.one_of(f"{here}.scope", rule.get("scope"), _SCOPES)
    return errors


def _conditions(obj: Object, path: str) -> Errors:
    errors: Errors = []
    seen: set[str] = set()
    for index, condition in enumerate(obj.get("matchConditions") or []):
        here, name = f"{path}.matchConditions[{index}]", str(condition.get("name") or "")
        errors += rules.name(f"{here}.name", name, rules.qualified_problems)
        if name in seen:
            errors.append(rules.duplicate(f"{here}.name", name))
        seen.add(name)
        errors += _expression(condition, here)
    return errors


def _expression(obj: Object, path: str) -> Errors:
    text = str(obj.get("expression") or "")
    return expressions.check(f"{path}.expression", text) if text.strip() else [required(f"{path}.expression")]


def _default_policy(policy: Object) -> None:
    spec = policy.setdefault("spec", {})
    spec["failurePolicy"] = spec.get("failurePolicy") or "Fail"
    if isinstance(spec.get("matchConstraints"), dict):
        _default_match(spec["matchConstraints"], "resourceRules")
        _default_excluded(spec["matchConstraints"])


def _default_binding(binding: Object) -> None:
    spec = binding.setdefault("spec", {})
    if isinstance(spec.get("matchResources"), dict):
        _default_match(spec["matchResources"], "resourceRules")
        _default_excluded(spec["matchResources"])


def _default_excluded(match: Object) -> None:
    for rule in match.get("excludeResourceRules") or []:
        rule["scope"] = rule.get("scope") or "*"


def _validate_policy(policy: Object) -> Errors:
    spec = policy.get("spec") or {}
    errors = rules.one_of("spec.failurePolicy", spec.get("failurePolicy"), _FAILURE)
    match = spec.get("matchConstraints")
    if match is None:
        errors.append(required("spec.matchConstraints"))
    elif not match.get("resourceRules"):
        errors.append(required("spec.matchConstraints.resourceRules"))
    else:
        errors += _match(match, "spec.matchConstraints", "resourceRules")
    for index, variable in enumerate(spec.get("variables") or []):
        errors += _expression(variable, f"spec.variables[{index}]")
    return errors + _conditions(spec, "spec")


def _validate_validating(policy: Object) -> Errors:
    spec = policy.get("spec") or {}
    errors = _validate_policy(policy)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        errors.append(required("spec.validations", "validations or auditAnnotations must be non-empty"))
    for index, each in enumerate(spec.get("validations") or []):
        errors += _expression(each, f"spec.validations[{index}]")
        if each.get("messageExpression"):
            path = f"spec.validations[{index}].messageExpression"
            errors += expressions.check(path, str(each["messageExpression"]))
    return errors


def _validate_mutating(policy: Object) -> Errors:
    errors = _validate_policy(policy)
    for index, each in enumerate(dig(policy, "spec.mutations", [])):
        for field in ("applyConfiguration", "jsonPatch"):
            if each.get(field) is not None:
                errors += _expression(each[field], f"spec.mutations[{index}].{field}")
    return errors


def _validate_binding(binding: Object) -> Errors:
    return [] if dig(binding, "spec.policyName") else [required("spec.policyName")]


def _validate_validating_binding(binding: Object) -> Errors:
    errors = _validate_binding(binding)
    if not dig(binding, "spec.validationActions"):
        errors.append(required("spec.validationActions", "at least one validation action is required"))
    for index, action in enumerate(dig(binding, "spec.validationActions", [])):
        errors += rules.one_of(f"spec.validationActions[{index}]", action, ("Audit", "Deny", "Warn"))
    return errors


def _param_kind(policy: Object) -> str:
    found = dig(policy, "spec.paramKind")
    return f"{found.get('apiVersion')}/{found.get('kind')}" if found else "<unset>"


def _param(binding: Object) -> str:
    found = dig(binding, "spec.paramRef")
    if not found:
        return "<unset>"
    name = str(found.get("name") or UNKNOWN)
    return f"{found['namespace']}/{name}" if found.get("namespace") else name


_POLICY_COLUMNS: Final = (count("Validations", "spec.validations"), computed("ParamKind", _param_kind), AGE)
_MUTATIONS: Final = (count("Mutations", "spec.mutations"), computed("ParamKind", _param_kind), AGE)
_BINDING_COLUMNS: Final = (at("PolicyName", "spec.policyName"), computed("ParamRef", _param), AGE)


def _kind(kind: str, plural: str, columns: tuple[Column, ...], **rest: Any) -> Kind:
    return Kind(
        group=GROUP,
        version="v1",
        kind=kind,
        plural=plural,
        schema=f"io.k8s.api.admissionregistration.v1.{kind}",
        namespaced=False,
        singular=kind.lower(),
        columns=columns,
        **rest,
    )


def _webhooks(kind: str, *, mutating: bool) -> Kind:
    return _kind(
        kind,
        f"{kind.lower()}s",
        (count("Webhooks", "webhooks"), AGE),
        generation_fields=("webhooks",),
        default=_default_webhooks(mutating),
        validate=_validate_webhooks,
    )


KINDS: Final = (
    _kind(
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        _MUTATIONS,
        default=_default_policy,
        validate=_validate_mutating,
    ),
    _kind(
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        _BINDING_COLUMNS,
        default=_default_binding,
        validate=_validate_binding,
    ),
    _webhooks("MutatingWebhookConfiguration", mutating=True),
    _kind(
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        _POLICY_COLUMNS,
        subresources=("status",),
        default=_default_policy,
        validate=_validate_validating,
    ),
    _kind(
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        _BINDING_COLUMNS,
        default=_default_binding,
        validate=_validate_validating_binding,
    ),
    _webhooks("ValidatingWebhookConfiguration", mutating=False),
)

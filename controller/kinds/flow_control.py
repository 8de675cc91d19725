"""FlowSchemas and PriorityLevelConfigurations as objects: defaults, validation, columns. No request queues by them.

Spec: kube ``pkg/apis/flowcontrol``, ``v1/defaults.go`` and ``validation``.
"""

from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, at, dig
from controller.kinds.kind import Column, Kind, Object
from controller.kinds.rules import Errors, forbidden, invalid, required

GROUP: Final = "flowcontrol.apiserver.k8s.io"
_PRECEDENCE: Final = 1000
_PRECEDENCE_MAX: Final = 10_000
_SHARES: Final = 30
_QUEUING: Final = {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
_SUBJECTS: Final = {"User": "user", "Group": "group", "ServiceAccount": "serviceAccount"}


def _default_schema(schema: Object) -> None:
    spec = schema.setdefault("spec", {})
    spec["matchingPrecedence"] = spec.get("matchingPrecedence") or _PRECEDENCE


def _validate_schema(schema: Object) -> Errors:
    spec = schema.get("spec") or {}
    errors: Errors = []
    precedence = spec.get("matchingPrecedence", 0)
    if not 1 <= precedence <= _PRECEDENCE_MAX:
        errors.append(invalid("spec.matchingPrecedence", precedence, "must be a positive value up to 10000"))
    if not dig(spec, "priorityLevelConfiguration.name"):
        errors.append(required("spec.priorityLevelConfiguration.name", "must reference a priority level"))
    method = dig(spec, "distinguisherMethod.type")
    if spec.get("distinguisherMethod") is not None:
        errors += rules.one_of("spec.distinguisherMethod.type", method, ("ByNamespace", "ByUser"))
    for index, rule in enumerate(spec.get("rules") or []):
        errors += _rule(rule, f"spec.rules[{index}]")
    return errors


def _rule(rule: Object, path: str) -> Errors:
    errors: Errors = []
    if not rule.get("subjects"):
        errors.append(required(f"{path}.subjects", "subjects must contain at least one value"))
    for index, subject in enumerate(rule.get("subjects") or []):
        here, kind = f"{path}.subjects[{index}]", subject.get("kind")
        errors += rules.one_of(f"{here}.kind", kind, _SUBJECTS)
        field = _SUBJECTS.get(str(kind))
        if field and not dig(subject, f"{field}.name"):
            errors.append(required(f"{here}.{field}", f"{field} is required when subject kind is '{kind}'"))
    if not rule.get("resourceRules") and not rule.get("nonResourceRules"):
        errors.append(required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    return errors


def _default_level(level: Object) -> None:
    spec = level.setdefault("spec", {})
    if spec.get("type") == "Exempt":
        exempt = spec.setdefault("exempt", {})
        exempt.setdefault("nominalConcurrencyShares", 0)
        exempt.setdefault("lendablePercent", 0)
    limited = spec.get("limited")
    if isinstance(limited, dict):
        limited.setdefault("nominalConcurrencyShares", _SHARES)
        limited.setdefault("lendablePercent", 0)
        queuing = dig(limited, "limitResponse.queuing")
        for name, value in _QUEUING.items() if isinstance(queuing, dict) else ():
            queuing[name] = queuing.get(name) or value


def _validate_level(level: Object) -> Errors:
    spec = level.get("spec") or {}
    kind = spec.get("type")
    errors = rules.one_of("spec.type", kind, ("Exempt", "Limited"))
    if kind == "Limited" and spec.get("limited") is None:
        errors.append(required("spec.limited", "must not be empty when type is Limited"))
    if kind == "Exempt" and spec.get("limited") is not None:
        errors.append(forbidden("spec.limited", "must be nil if the type is not Limited"))
    if kind == "Limited" and spec.get("limited") is not None:
        limited = spec["limited"]
        errors += rules.non_negative("spec.limited.nominalConcurrencyShares", limited.get("nominalConcurrencyShares"))
        response = dig(limited, "limitResponse.type")
        errors += rules.one_of("spec.limited.limitResponse.type", response, ("Queue", "Reject"))
        if response == "Reject" and dig(limited, "limitResponse.queuing") is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            errors.append(forbidden("spec.limited.limitResponse.queuing", detail))
        if response == "Queue" and dig(limited, "limitResponse.queuing") is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            errors.append(required("spec.limited.limitResponse.queuing", detail))
    return errors


def _kind(kind: str, columns: tuple[Column, ...], **rest: Any) -> Kind:
    return Kind(
        group=GROUP,
        version="v1",
        kind=kind,
        plural=f"{kind.lower()}s",
        schema=f"io.k8s.api.flowcontrol.v1.{kind}",
        namespaced=False,
        singular=kind.lower(),
        subresources=("status",),
        columns=columns,
        **rest,
    )


KINDS: Final = (
    _kind(
        "FlowSchema",
        (
            at("PriorityLevel", "spec.priorityLevelConfiguration.name"),
            at("MatchingPrecedence", "spec.matchingPrecedence", "integer"),
            at("DistinguisherMethod", "spec.distinguisherMethod.type", empty=NONE),
            AGE,
        ),
        default=_default_schema,
        validate=_validate_schema,
    ),
    _kind(
        "PriorityLevelConfiguration",
        (
            at("Type", "spec.type"),
            at("NominalConcurrencyShares", "spec.limited.nominalConcurrencyShares", empty=NONE),
            at("Queues", "spec.limited.limitResponse.queuing.queues", empty=NONE),
            at("HandSize", "spec.limited.limitResponse.queuing.handSize", empty=NONE),
            at("QueueLengthLimit", "spec.limited.limitResponse.queuing.queueLengthLimit", empty=NONE),
            AGE,
        ),
        default=_default_level,
        validate=_validate_level,
    ),
)

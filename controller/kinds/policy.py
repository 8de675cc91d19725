"""PodDisruptionBudgets. What they spend is the eviction's and the disruption controller's."""

from typing import Final

from controller.kinds import rules
from controller.kinds.columns import AGE, at, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, invalid


def _validate(budget: Object) -> Errors:
    spec = budget.get("spec") or {}
    errors = rules.label_selector("spec.selector", spec.get("selector"))
    given = [key for key in ("minAvailable", "maxUnavailable") if spec.get(key) is not None]
    if len(given) == 2:
        errors.append(invalid("spec", "", "minAvailable and maxUnavailable cannot be both set"))
    for key in given:
        errors += rules.int_or_percent(f"spec.{key}", spec[key])
    policy = spec.get("unhealthyPodEvictionPolicy")
    errors += rules.one_of("spec.unhealthyPodEvictionPolicy", policy, ("AlwaysAllow", "IfHealthyBudget"), need=False)
    for key in ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"):
        if dig(budget, f"status.{key}") is not None:
            errors += rules.non_negative(f"status.{key}", dig(budget, f"status.{key}"))
    return errors


KINDS: Final = (
    Kind(
        group="policy",
        version="v1",
        kind="PodDisruptionBudget",
        plural="poddisruptionbudgets",
        schema="io.k8s.api.policy.v1.PodDisruptionBudget",
        singular="poddisruptionbudget",
        short_names=("pdb",),
        subresources=("status",),
        columns=(
            at("Min Available", "spec.minAvailable", empty="N/A"),
            at("Max Unavailable", "spec.maxUnavailable", empty="N/A"),
            at("Allowed Disruptions", "status.disruptionsAllowed", "integer", empty=0),
            AGE,
        ),
        validate=_validate,
    ),
)

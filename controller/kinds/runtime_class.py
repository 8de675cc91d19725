"""RuntimeClasses: which OCI runtime a pod is run by, what that costs, and which nodes have it."""

from typing import Final

from controller.kinds import rules
from controller.kinds.columns import AGE, at, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors


def _validate(found: Object) -> Errors:
    errors = rules.name("handler", found.get("handler"), rules.label_problems)
    for name, amount in dig(found, "overhead.podFixed", {}).items():
        errors += rules.quantity(f"overhead.podFixed[{name}]", amount)
    return errors + rules.labels("scheduling.nodeSelector", dig(found, "scheduling.nodeSelector"))


def _validate_update(found: Object, old: Object) -> Errors:
    return rules.immutable("handler", found.get("handler"), old.get("handler"))


KINDS: Final = (
    Kind(
        group="node.k8s.io",
        version="v1",
        kind="RuntimeClass",
        plural="runtimeclasses",
        schema="io.k8s.api.node.v1.RuntimeClass",
        namespaced=False,
        singular="runtimeclass",
        columns=(at("Handler", "handler"), AGE),
        generation_fields=(),
        validate=_validate,
        validate_update=_validate_update,
    ),
)

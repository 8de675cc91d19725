"""Leases."""

from typing import Final

from controller.kinds.columns import AGE, at, dig
from controller.kinds.kind import Kind, Object
from controller.kinds.rules import Errors, invalid


def _validate(lease: Object) -> Errors:
    seconds = dig(lease, "spec.leaseDurationSeconds")
    errors: Errors = []
    if seconds is not None and seconds <= 0:
        errors.append(invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
    transitions = dig(lease, "spec.leaseTransitions")
    if transitions is not None and transitions < 0:
        errors.append(invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
    return errors


LEASE: Final = Kind(
    group="coordination.k8s.io",
    version="v1",
    kind="Lease",
    plural="leases",
    schema="io.k8s.api.coordination.v1.Lease",
    singular="lease",
    columns=(at("Holder", "spec.holderIdentity"), AGE),
    generation_fields=(),
    validate=_validate,
)

KINDS: Final = (LEASE,)

"""CertificateSigningRequests: what may change through which path, columns. Who asks and who decides is admission's."""

from typing import Any, Final

from controller.kinds import rules
from controller.kinds.columns import AGE, NONE, at, computed, dig
from controller.kinds.kind import Column, Kind, Object, Subwrite
from controller.kinds.rules import Errors, forbidden, invalid, required

GROUP: Final = "certificates.k8s.io"
DURATION_S_MIN: Final = 600
_DECISIONS: Final = ("Approved", "Denied")
_USAGES: Final = frozenset(
    (
        *("signing", "digital signature", "content commitment", "key encipherment", "key agreement"),
        *("data encipherment", "cert sign", "crl sign", "encipher only", "decipher only", "any", "server auth"),
        *("client auth", "code signing", "email protection", "s/mime", "ipsec end system", "ipsec tunnel"),
        *("ipsec user", "timestamping", "ocsp signing", "microsoft sgc", "netscape sgc"),
    )
)


def conditions(request: Object) -> list[Object]:
    """``status.conditions``."""
    found: list[Object] = dig(request, "status.conditions", [])
    return found


def has_condition(request: Object, kind: str) -> bool:
    """Whether a condition of that type is there; of these, false ones do not exist."""
    return any(each.get("type") == kind for each in conditions(request))


def _prepare_create(request: Object) -> None:
    request["status"] = {}


def _prepare_update(request: Object, old: Object) -> None:
    request["spec"] = old.get("spec") or {}


def _decisions(request: Object) -> list[Object]:
    return [each for each in conditions(request) if each.get("type") in _DECISIONS]


def _confine_status(request: Object, old: Object) -> None:
    """Decisions come through ``approval`` only."""
    rest = [each for each in conditions(request) if each.get("type") not in _DECISIONS]
    _set(request, {**(request.get("status") or {})}, [*_decisions(old), *rest])


def _confine_approval(request: Object, old: Object) -> None:
    _set(request, {**(old.get("status") or {})}, conditions(request))


def _set(request: Object, status: Object, found: list[Object]) -> None:
    status.pop("conditions", None)
    if found:
        status["conditions"] = found
    request["status"] = status


def _validate(request: Object) -> Errors:
    spec = request.get("spec") or {}
    errors: Errors = []
    if not spec.get("request"):
        errors.append(required("spec.request"))
    usages = spec.get("usages") or []
    if not usages:
        errors.append(required("spec.usages", "usages is required"))
    for index, usage in enumerate(usages):
        if usage not in _USAGES:
            errors.append(rules.not_supported(f"spec.usages[{index}]", usage, _USAGES))
    signer = spec.get("signerName") or ""
    if not signer:
        errors.append(required("spec.signerName"))
    elif signer.count("/") != 1 or rules.subdomain_problems(signer.partition("/")[0]) or not signer.partition("/")[2]:
        errors.append(
            invalid(
                "spec.signerName",
                signer,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            )
        )
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < DURATION_S_MIN:
        errors.append(
            invalid("spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)")
        )
    for index, each in enumerate(conditions(request)):
        if each.get("type") in (*_DECISIONS, "Failed") and each.get("status") not in ("True", None, ""):
            errors.append(rules.not_supported(f"status.conditions[{index}].status", each["status"], ("True",)))
    if has_condition(request, "Approved") and has_condition(request, "Denied"):
        errors.append(invalid("status.conditions", "Denied", "Approved and Denied conditions are mutually exclusive"))
    return errors


def _validate_kept(request: Object, old: Object) -> Errors:
    lost = [each["type"] for each in _decisions(old) if not has_condition(request, each["type"])]
    return [forbidden("status.conditions", f"updates may not remove a condition of type {kind!r}") for kind in lost]


def _validate_certificate(request: Object, old: Object) -> Errors:
    was, now = dig(old, "status.certificate"), dig(request, "status.certificate")
    if was and now != was:
        return [forbidden("status.certificate", "updates may not change a certificate once it is set")]
    return _validate_kept(request, old)


def _state(request: Object) -> str:
    said = (
        "Denied"
        if has_condition(request, "Denied")
        else "Approved"
        if has_condition(request, "Approved")
        else "Pending"
    )
    said += ",Failed" if has_condition(request, "Failed") else ""
    return said + (",Issued" if dig(request, "status.certificate") else "")


def _duration(request: Object, now: float) -> Any:
    seconds = dig(request, "spec.expirationSeconds")
    return NONE if seconds is None else f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"


CERTIFICATE_SIGNING_REQUEST: Final = Kind(
    group=GROUP,
    version="v1",
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    schema="io.k8s.api.certificates.v1.CertificateSigningRequest",
    namespaced=False,
    singular="certificatesigningrequest",
    short_names=("csr",),
    subresources=("status", "approval"),
    columns=(
        AGE,
        at("SignerName", "spec.signerName"),
        at("Requestor", "spec.username"),
        Column("RequestedDuration", "string", _duration),
        computed("Condition", _state),
    ),
    generation_fields=(),
    selectable_fields={"spec.signerName": lambda obj: str(dig(obj, "spec.signerName", ""))},
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
    subwrites={
        "status": Subwrite(_confine_status, _validate_certificate),
        "approval": Subwrite(_confine_approval, _validate_kept),
    },
)

KINDS: Final = (CERTIFICATE_SIGNING_REQUEST,)

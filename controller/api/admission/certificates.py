"""CertificateSigningRequests say truly who asked, and only who may decide on a signer decides.

Spec: kube ``registry/certificates``, ``plugin/pkg/admission/certificates``.
"""

import base64
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from common.clock import Clock, rfc3339
from controller.api.access import MASTERS, Attributes, Authorizer
from controller.api.admission import AdmissionRequest, Lookup
from controller.api.status import ApiError, forbidden, invalid
from controller.kinds.certificates import GROUP, conditions
from controller.kinds.columns import dig
from controller.kinds.kind import FieldError, Object, ResourceKey

REQUESTS: Final = ResourceKey(GROUP, "certificatesigningrequests")
CLIENT_SIGNER: Final = "kubernetes.io/kube-apiserver-client"


class CertificateAdmission:
    """An admission step (``admit``)."""

    def __init__(self, authorizer: Authorizer, clock: Clock) -> None:
        self._authorizer = authorizer
        self._clock = clock

    def admit(self, request: AdmissionRequest, lookup: Lookup) -> None:
        """Raises ``ApiError`` 403 or 422."""
        del lookup
        if request.kind.key != REQUESTS or request.operation == "DELETE":
            return
        if request.operation == "CREATE":
            _complete(request)
        elif request.subresource == "approval":
            self._may(request, "approve")
            self._date(request.obj)
        elif request.subresource == "status":
            if dig(request.obj, "status.certificate") != dig(request.old, "status.certificate"):
                self._may(request, "sign")
            self._date(request.obj)

    def _may(self, request: AdmissionRequest, verb: str) -> None:
        """The verb on this signer, or on all of its domain."""
        signer = str(dig(request.old, "spec.signerName", ""))
        for name in (signer, signer.partition("/")[0] + "/*"):
            asked = Attributes(verb, GROUP, "signers", "", "", name, "")
            if self._authorizer.authorize(request.user, asked).allowed:
                return
        why = f'user not permitted to {verb} requests with signerName "{signer}"'
        raise forbidden(REQUESTS, request.obj["metadata"]["name"], why)

    def _date(self, obj: Object) -> None:
        now = rfc3339(self._clock.now())
        for each in conditions(obj):
            each["status"] = each.get("status") or "True"
            each.setdefault("lastTransitionTime", now)
            each.setdefault("lastUpdateTime", now)


def _complete(request: AdmissionRequest) -> None:
    spec, user = request.obj.setdefault("spec", {}), request.user
    for field in ("username", "uid", "groups", "extra"):
        spec.pop(field, None)
    spec["username"] = user.name
    if user.uid:
        spec["uid"] = user.uid
    if user.groups:
        spec["groups"] = list(user.groups)
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if not spec.get("request"):
        return
    name = request.obj["metadata"].get("name", "")
    parsed = parse(str(spec["request"]), name)
    groups = [str(each.value) for each in parsed.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    if spec.get("signerName") == CLIENT_SIGNER and MASTERS in groups:
        why = f"use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"
        raise forbidden(REQUESTS, name, why)


def parse(text: str, name: str) -> x509.CertificateSigningRequest:
    """``spec.request``. Raises ``ApiError`` 422."""
    try:
        found = x509.load_pem_x509_csr(base64.b64decode(text))
        if not found.is_signature_valid:
            raise ValueError("its signature does not verify")
    except Exception as err:  # the library raises what its parsers raise; whatever it is, the request is no good
        raise _broken(name, str(err)) from err
    return found


def _broken(name: str, why: str) -> ApiError:
    detail = f"PEM block type must be CERTIFICATE REQUEST: {why}"
    return invalid(
        GROUP, "CertificateSigningRequest", name, [FieldError("FieldValueInvalid", "spec.request", detail, "")]
    )

"""Signs approved CertificateSigningRequests of the signers that a cluster has by itself, when it was given a CA's key.

``kubernetes.io/kube-apiserver-client`` (users) and ``kubernetes.io/kube-apiserver-client-kubelet`` (nodes). Requests
of the latter come from nodes about themselves; nobody but an approver decides on either.

Spec: https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/
"""

import base64
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.clock import Clock
from common.errors import ConfigError, Retryable
from common.logs import logger
from common.tasks import KeyQueue
from controller.api.admission.certificates import CLIENT_SIGNER, REQUESTS, parse
from controller.api.local import LocalClient
from controller.api.node_authorizer import NODES_GROUP, PREFIX
from controller.api.status import ApiError, is_not_found
from controller.kinds.certificates import has_condition
from controller.kinds.columns import dig
from controller.kinds.kind import Object
from controller.store.cache import Cache, Change

NODE_SIGNER: Final = "kubernetes.io/kube-apiserver-client-kubelet"
LIFETIME_S: Final = 365 * 86_400
_SKEW: Final = timedelta(minutes=5)
_KEY_USAGES: Final = frozenset(("digital signature", "key encipherment", "client auth"))
log = logger("signer")


class CertificateAuthority:
    """A CA's certificate and key."""

    def __init__(self, cert: Path, key: Path) -> None:
        """Raises ``ConfigError`` for what is no such pair."""
        try:
            self._certificate = x509.load_pem_x509_certificate(cert.read_bytes())
            loaded = serialization.load_pem_private_key(key.read_bytes(), password=None)
        except (OSError, ValueError) as err:
            raise ConfigError(f"api.signer: {err}; name the CA's certificate and key in PEM") from err
        if not isinstance(loaded, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ConfigError("api.signer.key: an EC or RSA key is needed")
        if loaded.public_key() != self._certificate.public_key():
            raise ConfigError("api.signer: the key is not the certificate's")
        self._key = loaded

    def sign(self, request: x509.CertificateSigningRequest, seconds: int, now: float) -> bytes:
        """A client certificate with the request's subject, in PEM; it never outlives the CA."""
        start = datetime.fromtimestamp(now, UTC)
        end = min(start + timedelta(seconds=seconds), self._certificate.not_valid_after_utc)
        usage = x509.KeyUsage(True, False, True, False, False, False, False, False, False)
        made = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self._certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start - _SKEW)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)


def refusal(obj: Object, request: x509.CertificateSigningRequest) -> str:
    """Why an approved request is not one that its signer signs; empty when it is. Pure."""
    usages = set(dig(obj, "spec.usages", []))
    if "client auth" not in usages or not usages <= _KEY_USAGES:
        return "usages must be client auth, and may be digital signature and key encipherment"
    if dig(obj, "spec.signerName") != NODE_SIGNER:
        return ""
    groups = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
    names = [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if groups != [NODES_GROUP] or len(names) != 1 or not names[0].startswith(PREFIX):
        return f"subject must be a name that begins with {PREFIX} in the one organization {NODES_GROUP}"
    return ""


class Signer:
    """Follows the requests in ``cache``; writes certificates, or the condition Failed, with ``client``."""

    def __init__(self, authority: CertificateAuthority, cache: Cache, client: LocalClient, clock: Clock) -> None:
        self._authority = authority
        self._cache = cache
        self._client = client
        self._clock = clock
        self._queue: KeyQueue[str] = KeyQueue(clock)

    async def run(self) -> None:
        """Sign until cancelled."""

        def changed(change: Change) -> None:
            self._queue.add(change.entry.name)

        stop = self._cache.subscribe([REQUESTS], changed)
        for entry in self._cache.list(REQUESTS):
            self._queue.add(entry.name)
        with contextlib.ExitStack() as stack:
            stack.callback(stop)
            await self._queue.run(self._work)

    async def _work(self, name: str) -> float | None:
        entry = self._cache.get(REQUESTS, "", name)
        if entry is None:
            return None
        obj = entry.decode()
        mine = dig(obj, "spec.signerName") in (CLIENT_SIGNER, NODE_SIGNER)
        decided = has_condition(obj, "Approved") and not has_condition(obj, "Denied")
        if not mine or not decided or dig(obj, "status.certificate") or has_condition(obj, "Failed"):
            return None
        status = obj["status"]
        try:
            request = parse(obj["spec"]["request"], name)
            why = refusal(obj, request)
        except ApiError as err:
            why = str(err)
        if why:
            failed = {"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why}
            status["conditions"] = [*status.get("conditions", []), failed]
        else:
            seconds = min(int(dig(obj, "spec.expirationSeconds", LIFETIME_S)), LIFETIME_S)
            made = self._authority.sign(request, seconds, self._clock.now())
            status["certificate"] = base64.b64encode(made).decode()
        try:
            await self._client.update_status(REQUESTS, obj)
        except ApiError as err:
            if is_not_found(err):
                return None
            raise Retryable(str(err)) from err
        log.info("signed" if not why else "not signed", request=name, reason=why)
        return None

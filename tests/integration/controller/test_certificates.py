"""A user gets a certificate: asks, is approved, is let in under that name; and what is refused."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.clock import SystemClock
from common.settings import TlsFiles
from controller.api.signer import CertificateAuthority, Signer
from tests.integration.conftest import ApiServer, write_kubeconfig
from tests.support.pki import TestCa

pytestmark = pytest.mark.integration


@pytest.fixture
async def server(api_server: ApiServer, pki: TestCa) -> AsyncIterator[ApiServer]:
    """An API that signs."""
    form = serialization.PrivateFormat.PKCS8
    text = pki.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (pki.folder / "ca.key").write_bytes(text)
    authority = CertificateAuthority(pki.folder / "ca.crt", pki.folder / "ca.key")
    async with asyncio.TaskGroup() as group:
        signer = Signer(authority, api_server.api.ports.cache, api_server.local, SystemClock())
        task = group.create_task(signer.run())
        yield api_server
        task.cancel()


def asking(key: ec.EllipticCurvePrivateKey, name: str, group: str) -> str:
    subject = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, name), x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)]
    )
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()


def manifest(request: str, **spec: object) -> str:
    wanted = {
        "request": request,
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
        **spec,
    }
    head = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "jane"}}
    return json.dumps({**head, "spec": wanted})


async def test_an_approved_request_becomes_a_certificate(server: ApiServer) -> None:
    kubectl, key = server.kubectl, ec.generate_private_key(ec.SECP256R1())
    await kubectl("create", "-f", "-", stdin=manifest(asking(key, "jane", "readers"), username="somebody-else"))
    head, row = (await kubectl("get", "csr")).splitlines()
    assert (head.split()[-1], row.split()[-1]) == ("CONDITION", "Pending")
    assert "kubernetes-admin" in row
    await kubectl("certificate", "approve", "jane")
    await kubectl("wait", "--for=jsonpath={.status.certificate}", "csr/jane", "--timeout=10s")
    assert (await kubectl("get", "csr")).split()[-1] == "Approved,Issued"
    text = await kubectl("get", "csr", "jane", "-o", "jsonpath={.status.certificate}")
    folder = server.kubeconfig.parent
    (folder / "jane.crt").write_bytes(base64.b64decode(text))
    form = serialization.PrivateFormat.PKCS8
    (folder / "jane.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    tls = TlsFiles(ca=server.admin.ca, cert=folder / "jane.crt", key=folder / "jane.key")
    write_kubeconfig(folder / "jane", server.url, tls)
    refused = await kubectl("--kubeconfig", str(folder / "jane"), "get", "pods", check=False)
    assert 'User "jane" cannot list resource "pods"' in refused


async def test_denied_and_unfit_requests_get_none(server: ApiServer) -> None:
    kubectl, key = server.kubectl, ec.generate_private_key(ec.SECP256R1())
    await kubectl("create", "-f", "-", stdin=manifest(asking(key, "jane", "x")))
    await kubectl("certificate", "deny", "jane")
    assert (await kubectl("get", "csr")).split()[-1] == "Denied"
    refused = await kubectl("certificate", "approve", "jane", check=False)
    assert "already Denied" in refused
    await kubectl("delete", "csr", "jane")
    await kubectl("create", "-f", "-", stdin=manifest(asking(key, "jane", "x"), usages=["server auth"]))
    await kubectl("certificate", "approve", "jane")
    await kubectl("wait", "--for=condition=Failed", "csr/jane", "--timeout=10s")
    assert (await kubectl("get", "csr")).split()[-1] == "Approved,Failed"


async def test_bad_requests_are_told_why(server: ApiServer) -> None:
    kubectl, key = server.kubectl, ec.generate_private_key(ec.SECP256R1())
    refused = await kubectl("create", "-f", "-", stdin=manifest(asking(key, "eve", "system:masters")), check=False)
    assert "with system:masters group is not allowed" in refused
    refused = await kubectl("create", "-f", "-", stdin=manifest(base64.b64encode(b"x").decode()), check=False)
    assert "spec.request: Invalid value" in refused
    refused = await kubectl("create", "-f", "-", stdin=manifest(asking(key, "e", "x"), signerName="none"), check=False)
    assert "must be a fully qualified domain and path" in refused

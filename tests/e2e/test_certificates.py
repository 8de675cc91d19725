"""Certificates that users ask for: good for the API, as whoever was approved, and for nothing else of the cluster."""

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e
Kubectl = Any
Eventually = Callable[..., Any]


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=30)


@pytest.fixture
def request_name(kubectl: Kubectl) -> Any:
    yield kubectl.namespace
    kubectl.attempt("delete", "csr", kubectl.namespace)


@pytest.fixture
def signed(kubectl: Kubectl, request_name: str, eventually: Eventually, tmp_path: Path) -> tuple[Path, Path]:
    """Certificate and key of a user; it was approved."""
    key, request, certificate = tmp_path / "key", tmp_path / "request", tmp_path / "certificate"
    openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-subj", "/CN=jo", "-out", str(request)
    )
    spec = {
        "request": base64.b64encode(request.read_bytes()).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    meta = {"name": request_name}
    kind = "CertificateSigningRequest"
    kubectl.apply({"apiVersion": "certificates.k8s.io/v1", "kind": kind, "metadata": meta, "spec": spec})
    kubectl("certificate", "approve", request_name)
    found = eventually(lambda: kubectl.get("csr", request_name)["status"].get("certificate"))
    certificate.write_bytes(base64.b64decode(found))
    return certificate, key


def test_an_approved_user_may_what_roles_say(cluster: Any, kubectl: Kubectl, signed: tuple[Path, Path]) -> None:
    certificate, key = signed
    kubectl("create", "rolebinding", "jo", "--clusterrole=view", "--user=jo")
    words = ["kubectl", "-s", "https://127.0.0.1:6443", f"--certificate-authority={cluster.layout.pki / 'ca.crt'}"]
    words += [f"--client-certificate={certificate}", f"--client-key={key}", "-n", kubectl.namespace]

    def jo(*more: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "KUBECONFIG": "/dev/null"}
        command = [*words, *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environ)

    assert jo("get", "configmaps").returncode == 0
    denied = jo("get", "nodes")
    assert denied.returncode != 0
    assert 'User "jo" cannot list resource "nodes"' in denied.stderr


@pytest.mark.parametrize(("machine", "server"), [("control", "172.30.0.2:8883"), ("host-1", "172.30.0.11:10250")])
def test_nobody_else_knows_it(cluster: Any, signed: tuple[Path, Path], machine: str, server: str) -> None:
    """Neither the broker nor a host lets it in. TLS 1.2: there a refusal ends the handshake itself."""

    def is_let_in(certificate: Path, key: Path) -> bool:
        shell = f"openssl s_client -tls1_2 -connect {server} -cert {certificate} -key {key} > /dev/null 2>&1; echo $?"
        return cluster.exec(machine, "sh", "-c", shell).strip() == "0"

    pki = cluster.layout.pki
    assert is_let_in(pki / "host-1-agent.crt", pki / "host-1-agent.key")
    assert not is_let_in(*signed)

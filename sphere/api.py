"""The little that `sphere` asks of the Kubernetes API, over the admin's certificate. Standard library only."""

import base64
import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from common.errors import Retryable
from sphere import topology
from sphere.layout import Layout
from sphere.secret_files import write_private

TIMEOUT_S = 5.0


def get(layout: Layout, path: str) -> Any:
    """Decoded JSON (or text, for /readyz) at ``path``. Raises ``Retryable`` when the API does not answer with 200."""
    return _request(layout, "GET", path)


def delete(layout: Layout, path: str) -> None:
    """Delete the object at ``path``. Raises ``Retryable`` when the API does not answer with 200."""
    _request(layout, "DELETE", path)


def _request(layout: Layout, method: str, path: str) -> Any:
    pki = layout.pki
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
    connection = http.client.HTTPSConnection("127.0.0.1", topology.API_PORT, timeout=TIMEOUT_S, context=context)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as err:
        raise Retryable(f"the API does not answer: {err}") from err
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise Retryable(f"the API answers {path} with {response.status}: {body[:200].decode(errors='replace')}")
    kind = response.getheader("Content-Type", "")
    return json.loads(body) if "json" in kind else body.decode(errors="replace")


def node_readiness(layout: Layout) -> dict[str, bool]:
    """Node name -> whether its condition Ready is True."""
    items = get(layout, "/api/v1/nodes").get("items") or []
    return {node["metadata"]["name"]: _is_ready(node) for node in items}


def _is_ready(node: dict[str, Any]) -> bool:
    conditions = node.get("status", {}).get("conditions") or []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def write_kubeconfig(layout: Layout) -> None:
    """The admin's kubeconfig of the one-machine cluster. Mode 0600."""
    write_kubeconfig_file(layout.kubeconfig, layout.pki, f"https://127.0.0.1:{topology.API_PORT}")


def write_kubeconfig_file(target: Path, pki: Path, server: str) -> None:
    """The admin's kubeconfig, certificates included, so that the one file can be copied. Mode 0600."""

    def data(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "sphere", "cluster": {"server": server, "certificate-authority-data": data("ca.crt")}},
        ],
        "users": [
            {
                "name": "kubernetes-admin",
                "user": {"client-certificate-data": data("admin.crt"), "client-key-data": data("admin.key")},
            }
        ],
        "contexts": [{"name": "sphere", "context": {"cluster": "sphere", "user": "kubernetes-admin"}}],
        "current-context": "sphere",
    }
    write_private(target, json.dumps(config, indent=2).encode() + b"\n")

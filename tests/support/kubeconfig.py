"""Reads the parts of a kubeconfig that a plain HTTPS client needs."""

import base64
import tempfile
from pathlib import Path
from typing import Any


def credentials(config: dict[str, Any], folder: Path) -> tuple[str, dict[str, str]]:
    """Server URL, and paths of ``ca``, ``cert``, ``key``; inline data is put into private temporary files."""
    context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in config["users"] if u["name"] == context["user"])
    places = {
        "ca": (cluster, "certificate-authority"),
        "cert": (user, "client-certificate"),
        "key": (user, "client-key"),
    }
    files = {}
    for name, (where, field) in places.items():
        if f"{field}-data" in where:
            with tempfile.NamedTemporaryFile(delete=False, prefix=f"sphere-bench-{name}-") as file:
                file.write(base64.b64decode(where[f"{field}-data"]))
            files[name] = file.name
        else:
            files[name] = str((folder / where[field]).resolve())
    return cluster["server"], files

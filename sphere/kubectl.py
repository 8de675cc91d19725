"""The user's kubectl, as the admin of the one-machine cluster."""

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from common.errors import Terminal
from sphere.layout import Layout

TIMEOUT_S = 120.0


class Kubectl:
    """Runs kubectl with the cluster's kubeconfig."""

    def __init__(self, layout: Layout) -> None:
        self.environ = {**os.environ, "KUBECONFIG": str(layout.kubeconfig)}

    def try_run(
        self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """The finished process, whatever its status. Raises ``Terminal`` when it does not end."""
        try:
            return subprocess.run(
                ["kubectl", *arguments],
                env=self.environ,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
            )
        except FileNotFoundError:
            raise Terminal(
                "kubectl is not on PATH; `make install` installs Debian's, or put a newer one there"
            ) from None
        except subprocess.TimeoutExpired:
            raise Terminal(f"`kubectl {' '.join(arguments)}` did not end within {timeout_s:.0f} s") from None

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> str:
        """Standard output. Raises ``Terminal`` with kubectl's own words."""
        done = self.try_run(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise Terminal(f"`kubectl {' '.join(arguments)}` failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def items(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """Objects of ``kind`` in ``namespace``."""
        options: Sequence[str] = ("-l", selector) if selector else ()
        listed: list[dict[str, Any]] = json.loads(self.run("-n", namespace, "get", kind, *options, "-o", "json"))[
            "items"
        ]
        return listed

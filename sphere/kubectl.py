"""The user's kubectl, as the admin of the one-machine cluster; the one in ``.venv/bin`` where the user's is too old."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import Any

from common.errors import Terminal
from sphere.install import clients
from sphere.layout import PROJECT, Layout

TIMEOUT_S = 120.0
PROGRAMS = PROJECT / ".venv" / "bin"
"""Where `make install` puts `sphere`, and kubectl and Helm if PATH lacks them."""


def search_path() -> str:
    """PATH, with our programs in it where it lacks them."""
    return clients.search_path(os.environ.get("PATH", os.defpath), PROGRAMS)


def shell_lines(layout: Layout) -> list[str]:
    """What the user types into a shell to go on with this cluster."""
    lines = [f"export KUBECONFIG={shlex.quote(str(layout.kubeconfig))}"]
    path = os.environ.get("PATH", os.defpath)
    if search_path() != path or (shutil.which("sphere", path=path) is None and (PROGRAMS / "sphere").exists()):
        lines.insert(0, f"export PATH={shlex.quote(str(PROGRAMS))}:$PATH")
    return lines


class Kubectl:
    """Runs kubectl with the cluster's kubeconfig."""

    def __init__(self, layout: Layout) -> None:
        self.environ = {**os.environ, "PATH": search_path(), "KUBECONFIG": str(layout.kubeconfig)}

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
                "kubectl is neither on PATH nor in .venv/bin; run `make install`, or put kubectl 1.28 or later on PATH"
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

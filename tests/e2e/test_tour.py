"""The tour of the README does what it says: its own words are run, in a namespace of the test."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sphere.layout import PROJECT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
TIMEOUT_S = 200
PAGE = "Hello from Sphere."


def _script() -> str:
    text = (PROJECT / "README.md").read_text().split("## The first ten minutes")[1].split("\n## ")[0]
    (script,) = re.findall(r"```sh\n(.*?)```", text, re.S)
    first, _, rest = script.partition("\n")
    assert first.startswith("export PATH="), "the environment is the test's"
    return str(rest)


@pytest.fixture
def environ(cluster: Any, namespace: str, tmp_path: Path) -> dict[str, str]:
    """`sphere` on PATH, and kubectl in the test's namespace without having to say so."""
    command = tmp_path / "sphere"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m sphere "$@"\n')
    command.chmod(0o755)
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": str(kubeconfig)}
    context = ["kubectl", "config", "set-context", "--current", f"--namespace={namespace}"]
    subprocess.run(context, env=environ, check=True, capture_output=True, timeout=30)
    return environ


def test_every_step_of_the_tour(environ: dict[str, str]) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _script()],
        cwd=PROJECT,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    said = done.stdout
    assert done.returncode == 0, said + done.stderr
    before, _, after = said.partition("networkpolicy.networking.k8s.io/hello created")
    assert before.count(PAGE) == 1, "without a policy it is let in"
    in_force, _, friendly = after.partition("pod/client labeled")
    assert "in force on" in in_force
    assert "dropped" in in_force
    assert PAGE not in in_force, "nothing gets through once the policy is realized"
    assert friendly.count(PAGE) == 1, "a friend is let in"
    assert "asked" in friendly
    assert "lost" not in friendly, "agents were killed, and nobody noticed"
    assert friendly.count("nsx-agent: killed") == 3
    assert "table" in friendly

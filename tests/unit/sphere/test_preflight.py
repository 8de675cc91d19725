"""What a machine lacks is told with its cure, before anything is made."""

import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.errors import Terminal
from sphere import preflight


def test_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Terminal, match=r"needs root.*sudo"):
        preflight.check(monitoring=False)


def test_all_missing_programs_are_named_by_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight.shutil, "which", lambda tool: None if tool in ("nft", "crun") else tool)
    with pytest.raises(Terminal, match="apt-get install crun nftables"):
        preflight.check(monitoring=False)


def test_all_missing_features_of_the_kernel_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight.shutil, "which", lambda tool: tool)
    monkeypatch.setattr(preflight, "succeeds", lambda *_args, **_options: False)
    with pytest.raises(Terminal) as caught:
        preflight.check(monitoring=False)
    for cure in ("podman run --privileged", "modprobe vxlan", "modprobe bridge", "modprobe nf_tables"):
        assert cure in str(caught.value)


def test_too_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preflight.check_room(tmp_path / "not" / "made" / "yet")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _path: SimpleNamespace(free=300 << 20))
    with pytest.raises(Terminal, match=f"the disk of {tmp_path} has 300 MiB free.*SPHERE_RUN"):
        preflight.check_room(tmp_path / "run")


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Terminal, match=f"127.0.0.1:{port}.*Address already in use; stop what listens there"):
            preflight.check_port(port)
    preflight.check_port(port)

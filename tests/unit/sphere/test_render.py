"""`sphere render` and `sphere pki issue`: what ansible's roles call. Each says truly whether it changed anything."""

import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from common.errors import Terminal
from sphere.__main__ import cli


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, prog_name="sphere")
    if isinstance(done.exception, Terminal):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output.strip()


def _broker(folder: Path, address: str = "192.0.2.2") -> str:
    places = ("--pki", "/pki", "--state", str(folder), "--into", str(folder), "--user", folder.owner())
    return _run("render", "broker", "--address", address, *places)


@pytest.mark.skipif(os.geteuid() != 0, reason="files of root")
@pytest.mark.parametrize(
    ("command", "file"), [(("containerd",), "config.toml"), (("unbound", "--forward", "192.0.2.53"), "unbound.conf")]
)
def test_second_run_is_unchanged(tmp_path: Path, command: tuple[str, ...], file: str) -> None:
    into = ("--into", str(tmp_path))
    assert [_run("render", *command, *into) for _ in range(2)] == ["changed", "unchanged"]
    (tmp_path / file).chmod(0o666)
    assert _run("render", *command, *into) == "changed"
    assert stat.S_IMODE((tmp_path / file).stat().st_mode) == 0o644
    (tmp_path / file).write_text("# by hand\n")
    assert [_run("render", *command, *into) for _ in range(2)] == ["changed", "unchanged"]


@pytest.mark.skipif(os.geteuid() != 0, reason="files of root")
def test_the_access_list_is_state_that_is_written_once(tmp_path: Path) -> None:
    assert _broker(tmp_path) == "changed"
    access = tmp_path / "dynamic-security.json"
    assert stat.S_IMODE(access.stat().st_mode) == 0o600
    access.write_text('{"clients": ["of the running broker"]}')
    assert _broker(tmp_path) == "unchanged"
    assert _broker(tmp_path, "192.0.2.3") == "changed"
    assert "of the running broker" in access.read_text()


def test_messages_name_the_cure(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="the folder must exist"):
        _run("render", "containerd", "--into", str(tmp_path / "absent"))
    with pytest.raises(Terminal, match="give IPv4 addresses"):
        _run("render", "unbound", "--address", "nowhere", "--into", str(tmp_path))


def test_issue_keeps_what_fits_and_adds_a_host(tmp_path: Path) -> None:
    base = ("pki", "issue", str(tmp_path / "pki"), "--control", "192.0.2.2", "--host", "host-1=192.0.2.11")
    first = _run(*base).split()
    assert {"ca", "apiserver", "host-1-spherelet", "host-1-agent", "service-account"} <= set(first)
    assert _run(*base) == "unchanged"
    assert _run(*base, "--host", "host-2=192.0.2.12").split() == ["changed:", "host-2-spherelet", "host-2-agent"]
    kubeconfig = tmp_path / "pki" / "kubeconfig"
    assert stat.S_IMODE(kubeconfig.stat().st_mode) == 0o600
    assert "https://192.0.2.2:6443" in kubeconfig.read_text()


@pytest.mark.parametrize(
    "hosts",
    [
        ("host-1",),
        ("host-1=x",),
        ("../up=192.0.2.1",),
        ("Host=192.0.2.1",),
        ("a..b=192.0.2.1",),
        ("a=192.0.2.1", "a=192.0.2.2"),
        ("a=192.0.2.1", "b=192.0.2.1"),
    ],
)
def test_impossible_hosts(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    with pytest.raises(Terminal, match="--host"):
        _run(
            "pki",
            "issue",
            str(tmp_path),
            "--control",
            "192.0.2.2",
            *(word for one in hosts for word in ("--host", one)),
        )
    assert not list(tmp_path.iterdir())

"""The `sphere` command without a cluster: help, completion, messages for bad input."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from common.errors import Terminal
from sphere import cluster
from sphere.__main__ import COMMANDS, cli
from sphere.layout import PROJECT

HELP_MS_MAX = 400
"""Generous: what must not happen is the import of a big library, which costs more than this on a busy machine."""


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        return [(path, command)]
    context = click.Context(command)
    found = []
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        found += _commands(child, (*path, name))
    return found


def test_every_command_has_help_with_an_example() -> None:
    for path, _ in _commands(cli):
        done = CliRunner().invoke(cli, [*path, "--help"], prog_name="sphere")
        assert done.exit_code == 0
        assert "Examples:" in done.output, path
        assert "sphere " + " ".join(path) in done.output.split("Examples:")[1], path


def test_help_of_the_group_lists_every_command() -> None:
    done = CliRunner().invoke(cli, ["--help"], prog_name="sphere")
    assert [name for name in COMMANDS if f"  {name} " not in done.output] == []


def test_help_is_quick() -> None:
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "sphere", "--help"], cwd=PROJECT, check=True, capture_output=True, timeout=20)
    assert (time.monotonic() - started) * 1000 < HELP_MS_MAX


def test_help_imports_nothing_big() -> None:
    script = (
        "import sys, click; from sphere.__main__ import cli\n"
        "try: cli(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'rich', 'cryptography', 'grpc', 'aiohttp', 'msgspec', 'structlog'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, check=True, capture_output=True, text=True, timeout=20
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell], prog_name="sphere")
    assert done.exit_code == 0
    assert "_SPHERE_COMPLETE" in done.output


def _sphere(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sphere", *arguments],
        cwd=PROJECT,
        env={**os.environ, "SPHERE_RUN": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_without_a_cluster(tmp_path: Path) -> None:
    listed = _sphere(tmp_path, "host", "list", "-o", "json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    status = _sphere(tmp_path, "status")
    assert status.returncode == 1
    assert "sphere up" in status.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_messages_name_the_cure(tmp_path: Path) -> None:
    done = _sphere(tmp_path, "host", "kill", "host-1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no cluster is up; start one with `sphere up`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("count", [0, -1, 51])
def test_impossible_numbers_of_hosts(count: int) -> None:
    with pytest.raises(Terminal, match="1 to 50 hosts"):
        cluster.Wanted(hosts=count)

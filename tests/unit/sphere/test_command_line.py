"""The `sphere` command without a cluster: help, completion, messages for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner

from common.errors import Terminal
from sphere.__main__ import COMMANDS, cli
from sphere.layout import PROJECT, Layout
from sphere.wanted import Wanted, write_wanted


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


@pytest.mark.parametrize(
    "words", [["--help"], ["up", "--help"], ["host", "stop", "--help"], ["status", "--help"], ["image", "--help"]]
)
def test_help_and_completion_import_nothing_big(words: list[str]) -> None:
    script = (
        "import sys, click; from sphere.__main__ import cli\n"
        f"try: cli({words})\nexcept SystemExit: pass\n"
        "big = {'rich', 'cryptography', 'grpc', 'aiohttp', 'msgspec', 'structlog', 'http.client'}\n"
        "print(sorted(big & set(sys.modules)))"
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


def _environ(run: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "SPHERE_RUN": str(run), **more}


@pytest.fixture
def noted(tmp_path: Path) -> Path:
    """The run directory of a cluster of two hosts, as far as completion looks at it."""
    write_wanted(Layout(tmp_path), Wanted(hosts=2))
    return tmp_path


COMPLETIONS = [
    (["sphere", "st"], ["status"]),
    (["sphere", "host", "st"], ["start", "stop"]),
    (["sphere", "host", "stop", "host-"], ["host-1", "host-2"]),
    (["sphere", "host", "kill", "host-1", "--component", "n"], ["nsx-agent"]),
    (["sphere", "host", "kill", "control", "--component", "e"], ["etcd"]),
    (["sphere", "host", "list", "-o", "j"], ["json"]),
]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("words", "expected"), COMPLETIONS, ids=lambda value: value[-1])
def test_completion_knows_commands_hosts_and_components(
    noted: Path, monkeypatch: pytest.MonkeyPatch, shell: str, words: list[str], expected: list[str]
) -> None:
    monkeypatch.setenv("SPHERE_RUN", str(noted))
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
    completer = get_completion_class(shell)
    assert completer is not None
    lines = completer(cli, {}, "sphere", "_SPHERE_COMPLETE").complete().splitlines()
    # zsh: kind, word and help on a line each; the others: "kind,word", in fish with the help behind a tab.
    said = lines[1::3] if shell == "zsh" else [line.split(",", 1)[1].split("\t")[0] for line in lines if line]
    assert said == expected


def test_completion_in_a_real_bash(noted: Path, tmp_path: Path) -> None:
    (tmp_path / "sphere").write_text(f'#!/bin/sh\nexec {sys.executable} -m sphere "$@"\n')
    (tmp_path / "sphere").chmod(0o755)
    script = (
        "source <(sphere completion bash) && COMP_WORDS=(sphere host stop host-) COMP_CWORD=3 "
        '&& _sphere_completion sphere && echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=PROJECT,
        env=_environ(noted, PATH=f"{tmp_path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout.split() == ["host-1", "host-2"]


def test_completion_is_silent_where_the_cluster_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text("{")
    asked = {"_SPHERE_COMPLETE": "bash_complete", "COMP_WORDS": "sphere host stop h", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-m", "sphere"],
        cwd=PROJECT,
        env=_environ(tmp_path, **asked),
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")


def _sphere(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sphere", *arguments],
        cwd=PROJECT,
        env=_environ(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_without_a_cluster(tmp_path: Path) -> None:
    listed = _sphere(tmp_path, "host", "list", "-o", "json")
    assert (listed.returncode, json.loads(listed.stdout)) == (0, [])
    assert "no cluster is up" in listed.stderr
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
        Wanted(hosts=count)


def test_ports_that_do_not_exist(tmp_path: Path) -> None:
    done = _sphere(tmp_path, "host", "forward", "control", "9090", "--local", "70000")
    assert done.returncode == 2
    assert "1<=x<=65535" in done.stderr

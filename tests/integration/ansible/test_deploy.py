"""The playbook on a clean Debian: what it leaves there works, and a second run finds nothing to do."""

import stat
from pathlib import Path
from typing import Any

import pytest

from tests.integration.ansible.conftest import run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
VENV = "/opt/sphere/venv/bin"


@pytest.mark.parametrize(
    ("daemon", "config"), [("sphere-controller", "controller"), ("spherelet", "spherelet"), ("nsx-agent", "nsx-agent")]
)
def test_daemons_take_their_settings(deployed: Any, daemon: str, config: str) -> None:
    path = f"/etc/sphere/{config}.toml"
    assert f"{path} is valid" in deployed.inside(f"{VENV}/{daemon}", "--check", "--config", path)


def test_foreign_programs_take_theirs(deployed: Any) -> None:
    assert "no errors" in deployed.inside("unbound-checkconf", "/etc/unbound/unbound.conf")
    effective = deployed.inside("containerd", "--config", "/etc/containerd/config.toml", "config", "dump")
    assert 'config_path = "/etc/containerd/certs.d"' in effective


def test_the_package_is_whole(deployed: Any) -> None:
    """Installed from wheels alone: commands, data files, every module importable."""
    assert "Usage: sphere" in deployed.inside(f"{VENV}/sphere", "--help")
    assert "debian-packages.txt" in deployed.inside(f"{VENV}/pip", "show", "--files", "sphere")
    assert deployed.inside(f"{VENV}/pip", "check").strip() == "No broken requirements found."


def test_units_are_sound(deployed: Any) -> None:
    units = [f"/etc/systemd/system/{name}.service" for name in ("sphere-controller", "nsx-agent", "spherelet")]
    # It complains about unknown keys, but only in words.
    assert deployed.inside("sh", "-c", 'systemd-analyze --man=no verify "$@" 2>&1', "sh", *units) == ""


def test_keys_are_their_owners_alone(deployed: Any) -> None:
    keys = [path for folder in ("etc",) for path in (deployed.tree / folder).rglob("pki/**/*.key")]
    assert {path.name for path in keys} >= {
        "etcd.key",
        "broker.key",
        "apiserver.key",
        "controller.key",
        "service-account.key",
        "host-1-agent.key",
        "host-1-spherelet.key",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o400}
    owners = _user_names(deployed.tree)
    assert {path.name: owners[path.stat().st_uid] for path in keys}.items() >= {
        ("etcd.key", "etcd"),
        ("broker.key", "mosquitto"),
        ("apiserver.key", "sphere-controller"),
        ("host-1-spherelet.key", "root"),
    }
    assert not list((deployed.tree / "etc").rglob("ca.key")), "the authority's key stays where ansible runs"


def _user_names(tree: Path) -> dict[int, str]:
    rows = [line.split(":") for line in (tree / "etc/passwd").read_text().splitlines()]
    return {int(row[2]): row[0] for row in rows}


def test_second_run_changes_nothing(deployed: Any) -> None:
    recap = deployed.play()
    assert {name: counts["changed"] for name, counts in recap.items()} == {"control": 0, "host-1": 0}


def test_check_mode_finds_what_was_changed_by_hand_and_leaves_it(deployed: Any) -> None:
    settings = deployed.tree / "etc/sphere/nsx-agent.toml"
    kept = settings.read_text()
    settings.write_text(kept + "# by hand\n")
    recap = deployed.play("--check", "--diff", "--limit", "host-1")
    assert recap["host-1"]["changed"] == 1
    assert settings.read_text().endswith("# by hand\n")
    settings.write_text(kept)


def test_what_was_deployed_runs(deployed: Any, tmp_path: Path) -> None:
    """The control plane, the agent, unbound and Prometheus, with their units' users, in namespaces of this test."""
    script = str(Path(__file__).with_name("start.sh"))
    private = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
    pki = deployed.inventory.parent / "pki"
    assert "all ready" in run([*private, script, str(deployed.tree), str(pki), str(tmp_path)], timeout_s=90)

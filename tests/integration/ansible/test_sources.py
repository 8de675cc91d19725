"""The playbook as a text: well-formed, and saying the same as the one-machine cluster."""

import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sphere import components, topology
from sphere.layout import Layout
from tests.integration.ansible.conftest import ANSIBLE, run

pytestmark = pytest.mark.integration

TEMPLATES = {
    "sphere-controller": "controller/templates/controller.toml.j2",
    "spherelet": "node/templates/spherelet.toml.j2",
    "nsx-agent": "node/templates/nsx-agent.toml.j2",
}
ONLY_REAL_ETCD = {
    "peer-cert-file",
    "peer-key-file",
    "peer-trusted-ca-file",
    "peer-client-cert-auth",
    "peer-cert-allowed-cn",
    "initial-cluster-token",
}
"""Peers on other machines; the one-machine cluster has one member."""
SAME_ETCD = ("quota-backend-bytes", "max-request-bytes", "max-txn-ops", "auto-compaction-retention", "client-cert-auth")


def test_syntax() -> None:
    run(["ansible-playbook", "-i", "inventory.example/hosts.yml", "--syntax-check", "site.yml"], cwd=ANSIBLE)


@pytest.mark.skipif(shutil.which("ansible-lint") is None, reason="ansible-lint is not installed")
def test_lint() -> None:
    run(["ansible-lint", "--offline", "--profile", "production", "--nocolor", "-q", "--strict"], cwd=ANSIBLE)


def _component(name: str) -> components.Component:
    machines = (topology.control(), topology.host(1))
    layout = Layout(Path("/run-directory"))
    found = [one for m in machines for one in components.of(m, layout, monitoring=True, host_count=1)]
    return next(one for one in found if one.name == name)


def _keys(table: dict[str, Any], above: str = "") -> set[str]:
    found: set[str] = set()
    for key, value in table.items():
        found |= _keys(value, f"{above}{key}.") if isinstance(value, dict) else {above + key}
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_settings_have_the_keys_of_the_one_machine_cluster(name: str) -> None:
    text = (ANSIBLE / "roles" / TEMPLATES[name]).read_text()
    assert "{%" not in text, "only values are filled in, so that keys can be compared without ansible"
    rendered = re.sub(r"\{\{[^}]*\}\}", "x", re.sub(r"= \{\{[^}]*\}\}", "= 0", text))
    ((_, ours),) = _component(name).files.items()
    assert _keys(tomllib.loads(rendered)) == _keys(tomllib.loads(ours))


def test_etcd_has_the_options_of_the_one_machine_cluster() -> None:
    ours = dict(word.removeprefix("--").split("=", 1) for word in _component("etcd").argv[1:])
    text = (ANSIBLE / "roles/etcd/templates/etcd.j2").read_text()
    theirs = {key.lower().replace("_", "-"): value for key, value in re.findall(r"^ETCD_(\w+)=(.*)$", text, re.M)}
    assert set(theirs) - ONLY_REAL_ETCD == set(ours)
    assert {key: theirs[key] for key in SAME_ETCD} == {key: ours[key] for key in SAME_ETCD}

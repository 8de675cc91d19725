"""Config files that the one-machine cluster renders are the ones that the daemons take."""

import importlib
from pathlib import Path

import pytest

from common.settings import load
from sphere import components, topology
from sphere.layout import Layout


def _all(layout: Layout) -> list[components.Component]:
    return [
        component
        for machine in topology.machines(2)
        for component in components.of(machine, layout, monitoring=True, host_count=2)
    ]


@pytest.mark.parametrize(
    ("component", "module", "settings"),
    [
        ("sphere-controller", "controller.config", "ControllerSettings"),
        ("spherelet", "spherelet.config", "Config"),
        ("nsx-agent", "nsx_agent.config", "Config"),
    ],
)
def test_a_daemon_takes_its_config(tmp_path: Path, component: str, module: str, settings: str) -> None:
    found = [one for one in _all(Layout(tmp_path)) if one.name == component]
    assert found
    for one in found:
        ((path, text),) = one.files.items()
        target = tmp_path / path.name
        target.write_text(text)
        load(target, getattr(importlib.import_module(module), settings))


def test_state_of_machines_is_apart(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    owners: dict[Path, str] = {}
    for machine in topology.machines(3):
        for component in components.of(machine, layout, monitoring=True, host_count=3):
            for path in (*component.files, *component.initial, *component.directories):
                assert path.is_relative_to(layout.state(machine.name))
                assert owners.setdefault(path, machine.name) == machine.name


def test_only_the_controller_takes_the_api_socket(tmp_path: Path) -> None:
    assert [one.name for one in _all(Layout(tmp_path)) if one.listens] == ["sphere-controller"]


def test_monitoring_is_optional(tmp_path: Path) -> None:
    def names(monitoring: bool) -> list[str]:
        found = components.of(topology.control(), Layout(tmp_path), monitoring=monitoring, host_count=1)
        return [one.name for one in found]

    assert names(True) == [*names(False), "prometheus"]


@pytest.mark.parametrize(
    ("identity", "users"),
    [
        ("etcd", {"etcd"}),
        ("broker", {"mosquitto"}),
        ("controller", {"sphere-controller"}),
        ("apiserver", {"sphere-controller"}),
        ("prometheus", {"prometheus"}),
        ("host-1-agent", {"nsx-agent"}),
        ("host-2-spherelet", {"spherelet"}),
        ("admin", set()),
    ],
)
def test_who_has_to_be_told_of_a_new_certificate(tmp_path: Path, identity: str, users: set[str]) -> None:
    using = [one for one in _all(Layout(tmp_path)) if one.uses(identity)]
    assert {one.name for one in using} == users
    assert len(using) == len(users), "of one machine"

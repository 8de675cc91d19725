"""Scrape config, alerts and dashboard as files: what Prometheus' own tool says, and that generated is up to date."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.prometheus_conf import render
from common.settings import TlsFiles
from sphere.layout import PROJECT

pytestmark = pytest.mark.integration
ROLE = PROJECT / "ansible" / "roles" / "monitoring"
RULES = ROLE / "files" / "sphere.rules.yml"
GRID = 24


def _promtool(*arguments: str, cwd: Path = PROJECT) -> str:
    done = subprocess.run(["promtool", *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_rules_are_sound() -> None:
    assert "SUCCESS" in _promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    for file in (RULES, Path(__file__).with_name("alerts.test.yml")):
        shutil.copy(file, tmp_path)
    _promtool("test", "rules", "alerts.test.yml", cwd=tmp_path)


def test_scrape_config_is_sound(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("ca.crt", "prometheus.crt", "prometheus.key")]
    for file in files:
        file.touch()
    config = tmp_path / "prometheus.yml"
    config.write_text(
        render(
            controllers={"control": "192.0.2.2"},
            hosts={"host-1": "192.0.2.11", "host-2": "192.0.2.12"},
            tls=TlsFiles(ca=files[0], cert=files[1], key=files[2]),
            rules=[RULES],
            etcd={"control": "127.0.0.1:2381"},
        )
    )
    assert "SUCCESS" in _promtool("check", "config", "--syntax-only", str(config))


def test_dashboard_is_what_its_source_says() -> None:
    script = "import dashboard, sys; sys.stdout.write(dashboard.text())"
    done = subprocess.run(
        [sys.executable, "-B", "-c", script], cwd=ROLE, capture_output=True, text=True, check=True, timeout=30
    )
    held = (ROLE / "files" / "sphere.dashboard.json").read_text()
    assert held == done.stdout, "run: python ansible/roles/monitoring/dashboard.py"


def test_panels_fit_the_grid_and_do_not_overlap() -> None:
    panels = json.loads((ROLE / "files" / "sphere.dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells

"""An unmodified Helm and the API alone: what it stores, patches and deletes (`tests/e2e/test_helm.py` has the rest)."""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sphere.layout import PROJECT

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("helm") is None, reason="no helm: not on PATH, and the wheel is for amd64 only"),
]

CHART = str(PROJECT / "examples" / "chart-hello")


def helm(home: Path, *arguments: str) -> str:
    """Standard output, or the words of a failure."""
    command = ["helm", "--kubeconfig", str(home / "kubeconfig"), *arguments]
    done = subprocess.run(
        command, env={"HOME": str(home)}, executable=shutil.which("helm"), capture_output=True, text=True, timeout=60
    )
    return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def test_the_chart_is_sound(tmp_path: Path) -> None:
    assert "0 chart(s) failed" in helm(tmp_path, "lint", "--strict", CHART)


async def test_a_release_from_install_to_uninstall(api_server: Any, tmp_path: Path) -> None:
    async def run(*arguments: str) -> str:
        return await asyncio.to_thread(helm, tmp_path, *arguments)

    async def page() -> str:
        found = json.loads(await api_server.kubectl("get", "configmap", "page", "-o", "json"))
        return str(found["data"]["index.html"]).strip()

    assert "STATUS: deployed" in await run("install", "page", CHART)
    assert await page() == "Hello from Helm"
    assert "STATUS: deployed" in await run("upgrade", "page", CHART, "--set", "page=Good evening,replicas=3")
    deployment = json.loads(await api_server.kubectl("get", "deployment", "page", "-o", "json"))
    assert (await page(), deployment["spec"]["replicas"]) == ("Good evening", 3)
    await run("rollback", "page", "1")
    assert await page() == "Hello from Helm"
    (listed,) = json.loads(await run("list", "-o", "json"))
    assert (listed["name"], listed["revision"], listed["status"]) == ("page", "3", "deployed")
    refused = await run("install", "other", CHART, "--set-json", 'resources={"requests":{"cpu":"much"}}')
    assert "INSTALLATION FAILED" in refused
    assert "much" in refused or "quantit" in refused
    assert 'release "page" uninstalled' in await run("uninstall", "page")
    left = "deployments,services,configmaps,networkpolicies"
    found = await api_server.kubectl("get", left, "-l", "app.kubernetes.io/instance=page", "-o", "json")
    assert json.loads(found)["items"] == []

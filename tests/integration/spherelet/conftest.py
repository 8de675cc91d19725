"""One containerd for the whole directory; one host per test."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

from common.clock import SystemClock
from common.kube import KubeClient
from spherelet import compose


def _load(name: str) -> ModuleType:
    """Test folders are no packages, so siblings are loaded by path."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


world = _load("world")
busybox_archive = _load("busybox_archive")


@contextlib.contextmanager
def running_containerd(registries: Mapping[str, str] = MappingProxyType({}), disk_mib: int = 0) -> Iterator[Path]:
    """The directory of a private containerd, which serves at ``containerd.sock`` in it; removed afterwards.

    ``registries`` maps the names of registries to their URLs; with ``disk_mib``, images are kept on a disk so small.
    """
    if os.geteuid() != 0 or not shutil.which("containerd"):
        pytest.skip("needs root and containerd")
    from common import containerd_conf

    root = world.scratch()
    socket, conf, hosts = root / "containerd.sock", root / "config.toml", root / "registries"
    conf.write_text(containerd_conf.render(root=root / "root", state=root / "run", socket=socket, registry_hosts=hosts))
    for name, url in registries.items():
        (hosts / name).mkdir(parents=True)
        text = f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        (hosts / name / "hosts.toml").write_text(text)
    if disk_mib:
        (root / "root").mkdir()
        world.mounts.mount("tmpfs", root / "root", "tmpfs", options=f"size={disk_mib}m")
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "-c", str(conf)], stdout=log, stderr=log)
    try:
        ends = time.monotonic() + 20
        while subprocess.run(["ctr", "-a", str(socket), "version"], capture_output=True, timeout=20).returncode != 0:
            assert time.monotonic() < ends, (root / "log").read_text()[-2000:]
            time.sleep(0.1)
        yield root
    finally:
        process.terminate()
        process.wait(10)
        world.sweep(root, "/none")


@pytest.fixture(scope="session")
def containerd() -> Iterator[Path]:
    """Socket of a private containerd that has a busybox image."""
    with running_containerd() as root:
        hugetlb = Path("/sys/fs/cgroup/hugetlb")
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and not (hugetlb / "cgroup.procs").exists():
            hugetlb.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "cgroup", "-o", "hugetlb", "cgroup", str(hugetlb)], check=True, timeout=10)
        socket, archive = root / "containerd.sock", root / "busybox.tar"
        busybox_archive.build(archive, world.NAME)
        command = ["ctr", "-a", str(socket), "-n", "k8s.io", "image", "import", str(archive)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        yield socket


class Host:
    """One host: a fake API, a fake network agent, and spherelet's loop that can be stopped and started."""

    def __init__(self, directory: Path, containerd: Path, api: Any, agent: Any) -> None:
        self.directory, self.api, self.agent = directory, api, agent
        self.config = world.config(directory, api.url, containerd)
        self._stack: contextlib.AsyncExitStack | None = None
        self.loop: Any = None

    async def start(self) -> None:
        import asyncio

        self._stack = contextlib.AsyncExitStack()
        kube = KubeClient(self.api.url, None)
        self._stack.push_async_callback(kube.close)
        self.loop = await self._stack.enter_async_context(
            compose.pods(
                self.config,
                SystemClock(),
                kube,
                world.EmptyVolumes(),
                world.plain_environment,
                lambda runtime, on_result: world.NoProbes(),
            )
        )
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(self.loop.run())
        self._stack.callback(task.cancel)

    async def stop(self) -> None:
        """As a kill would: tasks end where they are, containers stay."""
        if self._stack is not None:
            await self._stack.aclose()
            self._stack = None


@contextlib.asynccontextmanager
async def running_host(containerd: Path, *, offline: bool = True) -> AsyncIterator[Host]:
    """A host over the containerd at that socket; ``offline`` as in its config."""
    directory = world.scratch()
    async with world.FakeApi().serve() as api, world.FakeNetworkAgent(directory / "nsx.sock").serve() as agent:
        made = Host(directory, containerd, api, agent)
        made.config = replace(made.config, containerd=replace(made.config.containerd, offline=offline))
        await made.start()
        try:
            yield made
        finally:
            try:
                await made.stop()
            finally:
                world.sweep(directory, made.config.cgroup_parent)


@pytest.fixture
async def host(containerd: Path) -> AsyncIterator[Host]:
    async with running_host(containerd) as made:
        yield made


@pytest.fixture(scope="session")
def conftest() -> ModuleType:
    """This module: test folders are no packages, so its context managers cannot be imported."""
    return sys.modules[__name__]

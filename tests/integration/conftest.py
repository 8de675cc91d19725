"""Fixtures with real peers: ``pki``, ``etcd``, ``api_server`` (HTTPS on a free port, with kubeconfig and kubectl)."""

import asyncio
import contextlib
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from common.clock import SystemClock
from common.settings import TlsFiles
from common.tls import server_context
from controller.api import openapi
from controller.api.access import CertificateAuthenticator, MastersAuthorizer
from controller.api.api import Api
from controller.api.assemble import assemble, fields_of
from controller.api.bootstrap import bootstrap
from controller.api.custom_resources import CustomResources
from controller.api.local import LocalClient
from controller.api.metrics import ApiMetrics
from controller.api.server import Server, bind
from controller.kinds.registry import REGISTRY
from controller.store.cache import Cache
from controller.store.etcd import Etcd
from controller.store.objects import Store
from tests.support.etcd_process import EtcdProcess, running_etcd
from tests.support.pki import TestCa


@pytest.fixture
def pki(tmp_path: Path) -> TestCa:
    """A certificate authority of this test."""
    return TestCa.create(tmp_path)


@pytest.fixture
def etcd(tmp_path: Path, pki: TestCa) -> Iterator[EtcdProcess]:
    """A running etcd of this test."""
    with running_etcd(tmp_path, pki.issue("etcd")) as process:
        yield process


@dataclass
class ApiServer:
    """A served API. ``kubectl`` runs the real one in a thread, so that the server goes on in this loop."""

    url: str
    api: Api
    local: LocalClient
    admin: TlsFiles
    kubeconfig: Path

    async def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Standard output (and standard error, when it fails and ``check`` is off)."""
        return await asyncio.to_thread(self._kubectl, arguments, stdin, check)

    async def request(self, method: str, path: str, body: str, content_type: str) -> tuple[int, str]:
        """What kubectl would not send: status and body of the answer to a raw request of the admin."""
        return await asyncio.to_thread(self._request, method, path, body, content_type)

    def _request(self, method: str, path: str, body: str, content_type: str) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=str(self.admin.ca))
        context.load_cert_chain(self.admin.cert, self.admin.key)
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        asked = urllib.request.Request(self.url + path, body.encode(), headers, method=method)
        try:
            with urllib.request.urlopen(asked, context=context, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as err:
            return err.code, err.read().decode()

    def _kubectl(self, arguments: tuple[str, ...], stdin: str | None, check: bool) -> str:
        home = self.kubeconfig.parent
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(home / "cache"), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if check and done.returncode:
            pytest.fail(f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr


def write_kubeconfig(path: Path, url: str, tls: TlsFiles) -> None:
    """A kubeconfig with one context."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": str(tls.ca)}}],
        "users": [{"name": "test", "user": {"client-certificate": str(tls.cert), "client-key": str(tls.key)}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }
    path.write_text(yaml.safe_dump(config))


@contextlib.asynccontextmanager
async def serving(folder: Path, pki: TestCa, etcd: EtcdProcess) -> AsyncIterator[ApiServer]:
    """An API server over ``etcd`` for the duration of an ``async with``."""
    clock, metrics = SystemClock(), ApiMetrics()
    connection = Etcd([etcd.endpoint], pki.issue("sphere-controller", "sphere:controllers"))
    store = Store(connection, clock, metrics.etcd_txn_s)
    kinds = REGISTRY.fork()
    cache = Cache(connection, clock, fields_of(kinds))
    api = assemble(
        kinds=kinds,
        store=store,
        cache=cache,
        clock=clock,
        authenticator=CertificateAuthenticator(),
        authorizer=MastersAuthorizer(),
        metrics=metrics,
        advertise="127.0.0.1:6443",
    )
    openapi.install(api.routes, kinds.all)
    local = LocalClient(api, "test")
    item = bind("127.0.0.1:0")
    url = f"https://127.0.0.1:{item.getsockname()[1]}"
    started = asyncio.Event()
    context = server_context(pki.issue("api"), client_certificate=False)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(cache.run())]
        async with asyncio.timeout(30):
            await cache.wait_synced()
        CustomResources(cache, kinds)
        tasks.append(group.create_task(Server(api, context).run([item], started)))
        await started.wait()
        await bootstrap(local, "127.0.0.1", "10.96.0.0/16", 6443)
        admin = pki.issue("kubernetes-admin", "system:masters")
        kubeconfig = folder / "kubeconfig"
        write_kubeconfig(kubeconfig, url, admin)
        try:
            yield ApiServer(url, api, local, admin, kubeconfig)
        finally:
            for task in tasks:
                task.cancel()
    await connection.close()


@pytest.fixture
async def api_server(tmp_path: Path, pki: TestCa, etcd: EtcdProcess) -> AsyncIterator[ApiServer]:
    """A running API server of this test, on a real etcd."""
    async with serving(tmp_path, pki, etcd) as server:
        yield server

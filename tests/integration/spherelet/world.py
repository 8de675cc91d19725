"""A host for tests: real containerd, conmon, crun; a fake API and a fake network agent. Leaves nothing behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from common.settings import TlsFiles
from spherelet.config import Api, Config, Containerd, Server
from spherelet.model import Image
from spherelet.runtime import mounts

Object = dict[str, Any]
NAME = "docker.io/library/busybox:latest"


class FakeApi:
    """Pods in memory: list, watch, status patch, delete with grace; events are kept."""

    def __init__(self) -> None:
        self.pods: dict[str, Object] = {}
        self.secrets: dict[str, Object] = {}
        self.runtime_handlers: dict[str, str] = {}
        """By RuntimeClass name."""
        self.events: list[Object] = []
        self.status_writes: dict[str, list[Object]] = {}
        self.revision = 1
        self.watches = 0
        """How many were ever opened."""
        self._watchers: list[asyncio.Queue[Object]] = []
        self.url = ""

    @contextlib.asynccontextmanager
    async def serve(self, socket_port: int = 0) -> AsyncIterator["FakeApi"]:
        app = web.Application()
        app.router.add_get("/api/v1/pods", self._list)
        app.router.add_get("/api/v1/namespaces/{ns}/secrets/{name}", self._secret)
        app.router.add_get("/apis/node.k8s.io/v1/runtimeclasses/{name}", self._runtime_class)
        app.router.add_post("/api/v1/namespaces/{ns}/events", self._event)
        app.router.add_patch("/api/v1/namespaces/{ns}/events/{name}", self._event)
        app.router.add_patch("/api/v1/namespaces/{ns}/pods/{name}/status", self._status)
        app.router.add_delete("/api/v1/namespaces/{ns}/pods/{name}", self._delete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", socket_port)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            for queue in self._watchers:
                queue.put_nowait({})
            await runner.cleanup()

    async def _secret(self, request: web.Request) -> web.Response:
        secret = self.secrets.get(request.match_info["name"])
        return web.json_response(secret or {"code": 404, "message": "not found"}, status=200 if secret else 404)

    async def _runtime_class(self, request: web.Request) -> web.Response:
        handler = self.runtime_handlers.get(request.match_info["name"])
        return web.json_response({"handler": handler} if handler else {"code": 404}, status=200 if handler else 404)

    def put(self, pod: Object, kind: str = "MODIFIED") -> None:
        self.revision += 1
        pod["metadata"]["resourceVersion"] = str(self.revision)
        name = pod["metadata"]["name"]
        if kind == "DELETED":
            self.pods.pop(name, None)
        else:
            self.pods[name] = pod
        for queue in self._watchers:
            queue.put_nowait({"type": kind, "object": orjson.loads(orjson.dumps(pod))})

    def create(self, pod: Object) -> Object:
        self.put(pod, "ADDED")
        return pod

    def delete(self, name: str, grace_s: int = 30) -> None:
        """What the API does with a DELETE from a user."""
        pod = self.pods[name]
        pod["metadata"] |= {"deletionTimestamp": "2030-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_s}
        self.put(pod)

    def status(self, name: str) -> Object:
        return self.pods.get(name, {}).get("status") or {}

    def reasons(self, name: str) -> list[str]:
        return [each["reason"] for each in self.events if each["involvedObject"]["name"] == name]

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            items = list(self.pods.values())
            return web.json_response({"metadata": {"resourceVersion": str(self.revision)}, "items": items})
        queue: asyncio.Queue[Object] = asyncio.Queue()
        self._watchers.append(queue)
        self.watches += 1
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                event = await queue.get()
                if not event:
                    break
                await answer.write(orjson.dumps(event) + b"\n")
        self._watchers.remove(queue)
        return answer

    async def _event(self, request: web.Request) -> web.Response:
        body = await request.json()
        if request.method == "POST":
            self.events.append(body)
        return web.json_response(body)

    async def _status(self, request: web.Request) -> web.Response:
        pod = self.pods.get(request.match_info["name"])
        if pod is None:
            return web.json_response({"code": 404, "message": "not found"}, status=404)
        body = await request.json()
        pod["status"] = {**(pod.get("status") or {}), **body["status"]}
        self.status_writes.setdefault(pod["metadata"]["name"], []).append(body["status"])
        self.put(pod)
        return web.json_response(pod)

    async def _delete(self, request: web.Request) -> web.Response:
        body = await request.json()
        pod = self.pods.get(request.match_info["name"])
        if pod is None or pod["metadata"]["uid"] != body["preconditions"]["uid"]:
            return web.json_response({"code": 404, "message": "not found"}, status=404)
        self.put(pod, "DELETED")
        return web.json_response(pod)


class FakeNetworkAgent:
    """Answers every operation; ``calls`` records them. The pod's namespace keeps only its loopback."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[Object] = []
        self.refuse: str = ""

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeNetworkAgent"]:
        server = await asyncio.start_unix_server(self._one, str(self.path))
        try:
            yield self
        finally:
            server.close()
            self.path.unlink(missing_ok=True)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = orjson.loads(await reader.readline())
        self.calls.append(request)
        answer: Object = {"ok": True, "address": "127.0.0.1", "drained": True}
        if self.refuse:
            answer = {"ok": False, "code": "failed", "message": self.refuse}
        writer.write(orjson.dumps(answer) + b"\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


class EmptyVolumes:
    """Directories for emptyDir; anything else fails as a missing ConfigMap does."""

    async def setup(self, pod: Object, pod_dir: Path, images: Mapping[str, Image]) -> Mapping[str, Path]:
        made = {}
        for volume in pod["spec"].get("volumes") or ():
            path = pod_dir / "volumes" / volume["name"]
            path.mkdir(parents=True, exist_ok=True)
            made[volume["name"]] = path
        return made

    async def subpaths(
        self, container: Object, pod_dir: Path, paths: Mapping[str, Path], env: Mapping[str, str]
    ) -> Mapping[int, Path]:
        return {}

    async def teardown(self, pod_dir: Path) -> None:
        shutil.rmtree(pod_dir / "volumes", ignore_errors=True)


async def plain_environment(pod: Object, container: Object, pod_ip: str, host_ip: str) -> list[tuple[str, str]]:
    return [(each["name"], each.get("value", "")) for each in container.get("env") or ()]


class NoProbes:
    """Never a verdict."""

    def start(self, pod: object, state: object, pod_ip: str) -> None: ...

    def stop(self, container_id: str) -> None: ...


def config(directory: Path, url: str, containerd: Path) -> Config:
    tls = TlsFiles(ca=Path("/none"), cert=Path("/none"), key=Path("/none"))
    return Config(
        host="thost",
        address="127.0.0.9",
        state_dir=directory / "state",
        api=Api(url=url, tls=tls),
        server=Server(listen="127.0.0.1:0", tls=tls),
        containerd=Containerd(socket=containerd, offline=True),
        cgroup_parent=f"/tspherelet-{directory.name}",
        nsx_socket=directory / "nsx.sock",
    )


def pod(name: str, *command: str, **spec: Any) -> Object:
    """A pod with one busybox container ``main``."""
    container = {"name": "main", "image": NAME, "command": list(command), **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}-{time.monotonic_ns():x}"},
        "spec": {"nodeName": "thost", "containers": [container], **spec},
    }


async def eventually(condition: Callable[[], Any], timeout_s: float = 15.0, what: str = "") -> Any:
    """Wait for ``condition`` to become true; its value."""
    ends = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise AssertionError(f"did not come true in {timeout_s} s: {what or condition}")
        await asyncio.sleep(0.01)


def census(root: Path, cgroup: str) -> list[str]:
    """Mounts, cgroups and processes that belong to a test host and should not be there any more."""
    left = [f"mount {each}" for each in mounts.below(root / "state")]
    for top in Path("/sys/fs/cgroup").iterdir():
        base = top / cgroup.lstrip("/")
        if base.is_dir():
            left += [f"cgroup {path}" for path in base.rglob("poduid-*") if path.is_dir()]
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with contextlib.suppress(OSError):
                text = (each / "cmdline").read_bytes()
                if b"/conmon" in text and str(root).encode() in text:
                    left.append(f"process {each.name}")
    return left


def scratch() -> Path:
    return Path(tempfile.mkdtemp(prefix="tsl-"))


def sweep(root: Path, cgroup: str) -> None:
    """Last resort after a failed test: stop and unmount whatever is left."""
    for line in census(root, cgroup):
        if line.startswith("process "):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[1]), signal.SIGTERM)
    for path in mounts.below(root):
        mounts.unmount(path)
    ends = time.monotonic() + 5
    while not _sweep_cgroups(cgroup) and time.monotonic() < ends:
        time.sleep(0.02)
    shutil.rmtree(root, ignore_errors=True)


def _sweep_cgroups(cgroup: str) -> bool:
    clean = True
    for top in Path("/sys/fs/cgroup").iterdir():
        for directory, _, _ in os.walk(top / cgroup.lstrip("/"), topdown=False):
            with contextlib.suppress(OSError):
                for pid in (Path(directory) / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError:
                clean = False
    return clean

"""The cluster under measurement: a small blocking API client, namespaces that go again, commands inside machines."""

import contextlib
import http.client
import json
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

from sphere import machines
from sphere.layout import Layout
from tests.support.kubeconfig import credentials

ROOT = Path(__file__).resolve().parents[2]
GONE_S = 60.0
Object = dict[str, Any]


class Refused(RuntimeError):
    """The API's answer was a failure; ``code`` is its HTTP status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Api:
    """One keep-alive connection with the admin's certificate of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        server, files = credentials(yaml.safe_load(kubeconfig.read_text()), kubeconfig.parent)
        self._url = urlparse(server)
        self._context = ssl.create_default_context(cafile=files["ca"])
        self._context.load_cert_chain(files["cert"], files["key"])
        for name in files.values():
            if Path(name).parent == Path(tempfile.gettempdir()):
                Path(name).unlink()
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(str(self._url.hostname), self._url.port, context=self._context, timeout=60)

    def call(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """Send one request; once more if the API server was restarted meanwhile. Raises ``Refused``."""
        try:
            return self._call(method, path, body, content_type)
        except (ConnectionError, http.client.HTTPException):
            time.sleep(2.0)
            self._connection = self._connect()
            return self._call(method, path, body, content_type)

    def _call(self, method: str, path: str, body: Object | None, content_type: str) -> Object:
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, path, payload, {"Content-Type": content_type})
        response = self._connection.getresponse()
        answer: Object = json.loads(response.read() or b"{}")
        if response.status >= 400:
            raise Refused(response.status, f"{method} {path}: {response.status} {answer.get('message')}")
        return answer

    def watch(self, path: str) -> Iterator[Object]:
        """Events of a watch on a connection of its own, until the caller stops."""
        connection = self._connect()
        connection.request("GET", path)
        response = connection.getresponse()
        try:
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def version(self, collection: str) -> str:
        """Where a watch of ``collection`` has to begin to miss nothing."""
        return str(self.call("GET", f"{collection}?limit=1")["metadata"]["resourceVersion"])

    @contextlib.contextmanager
    def namespace(self, name: str) -> Iterator[None]:
        """A namespace with its default service account, new and empty; all of it is gone at the end."""
        self._remove(name)
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            for event in self.watch(f"/api/v1/namespaces/{name}/serviceaccounts?watch=1&timeoutSeconds=30"):
                if event["object"]["metadata"]["name"] == "default":
                    break
            else:
                raise RuntimeError(f"namespace {name} got no default service account")
            yield
        finally:
            self._remove(name)

    def _remove(self, name: str) -> None:
        path, deadline = f"/api/v1/namespaces/{name}", time.monotonic() + GONE_S
        with contextlib.suppress(Refused):
            self.call("DELETE", path)
        while time.monotonic() < deadline:
            try:
                self.call("GET", path)
            except Refused as err:
                if err.code == 404:
                    return
                raise
            time.sleep(0.2)
        raise RuntimeError(f"namespace {name} is not gone after {GONE_S:.0f} s")


def in_machine(machine: str, *command: str) -> list[str]:
    """Command line that runs ``command`` inside the namespaces of a machine (``control``, ``host-1``)."""
    return machines.enter_argv(Layout.default(), machine, command)


def follow(host: str, *command: str) -> subprocess.Popen[str]:
    """Start ``command`` in a host's network and mount namespaces; terminating it ends it, unlike ``in_machine``."""
    supervisor = machines.pid_of(Layout.default(), host)
    if supervisor is None:
        raise RuntimeError(f"{host} is off; bring it back with `sphere up`")
    argv = ["nsenter", "--target", str(supervisor), "--net", "--mount", "--", *command]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def output(argv: list[str], timeout_s: float = 60) -> str:
    """Standard output of a command. Raises ``RuntimeError`` with its standard error if it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout_s, cwd=ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)[-120:]}: {done.stderr.strip()[-500:]}")
    return done.stdout

"""The cluster under measurement: a small blocking API client, and commands inside hosts."""

import http.client
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import yaml

from tests.support.kubeconfig import credentials

ROOT = Path(__file__).resolve().parents[2]
Object = dict[str, Any]


class Api:
    """One keep-alive connection with the admin's certificate of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        server, files = credentials(yaml.safe_load(kubeconfig.read_text()), kubeconfig.parent)
        self._url = urlparse(server)
        self._context = ssl.create_default_context(cafile=files["ca"])
        self._context.load_cert_chain(files["cert"], files["key"])
        self._connection = self._connect()

    def _connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(str(self._url.hostname), self._url.port, context=self._context, timeout=60)

    def call(
        self, method: str, path: str, body: Object | None = None, content_type: str = "application/json"
    ) -> Object:
        """Send one request. Raises ``RuntimeError`` with the API's message."""
        payload = None if body is None else json.dumps(body)
        self._connection.request(method, path, payload, {"Content-Type": content_type})
        response = self._connection.getresponse()
        answer: Object = json.loads(response.read() or b"{}")
        if response.status >= 400:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.get('message')}")
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


def sphere(*arguments: str) -> list[str]:
    """Command line of the project's own CLI."""
    return [sys.executable, "-m", "sphere", *arguments]


def in_host(host: str, *command: str) -> list[str]:
    """Command line that runs ``command`` inside a host's namespaces."""
    return sphere("host", "exec", host, "--", *command)


def output(argv: list[str], timeout_s: float = 60) -> str:
    """Standard output of a command that must succeed."""
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=timeout_s, cwd=ROOT).stdout

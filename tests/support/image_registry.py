"""A real image registry (Debian's docker-registry) on a free port of the loopback device, and how images get there."""

import base64
import contextlib
import http.client
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.etcd_process import free_ports

USER = "puller"
PASSWORD = "s3cret"
_HTPASSWD = "puller:$2b$04$COyeXMzvZtUxI6WkksP2uuYe.9Latl6wTNT0s4EJhVtagxQ21r1i2\n"
"""bcrypt of the password above, the only kind that the registry takes."""
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Registry:
    """docker-registry over ``folder``; may be stopped and started again. ``private``: only for USER with PASSWORD."""

    def __init__(self, folder: Path, *, private: bool = False) -> None:
        self.folder, self.private = folder, private
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.yml"
        lines = [
            "version: 0.1",
            "log: {level: warn, accesslog: {disabled: true}}",
            f"storage: {{filesystem: {{rootdirectory: {self.folder}/data}}}}",
            f"http: {{addr: '{self.address}'}}",
        ]
        if self.private:
            (self.folder / "htpasswd").write_text(_HTPASSWD)
            lines.append(f"auth: {{htpasswd: {{realm: test, path: {self.folder}/htpasswd}}}}")
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
        ends = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                self._ask("GET", "/v2/")
                return
            assert time.monotonic() < ends, (self.folder / "log").read_text()[-2000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def push(
        self, name: str, blobs: Mapping[str, bytes], manifest: bytes, tag: str, media_type: str = MANIFEST_TYPE
    ) -> None:
        """Store an image as ``name:tag``. ``blobs`` are by hexadecimal SHA-256."""
        for digest, data in blobs.items():
            place = self._ask("POST", f"/v2/{name}/blobs/uploads/", expect=202)["Location"]
            path = place[place.index("/v2/") :]
            self._ask("PUT", f"{path}{'&' if '?' in path else '?'}digest=sha256:{digest}", data, expect=201)
        self._ask("PUT", f"/v2/{name}/manifests/{tag}", manifest, expect=201, content_type=media_type)

    def blob_file(self, digest: str) -> Path:
        """Where the registry keeps the blob with this hexadecimal digest: to damage it."""
        return self.folder / "data/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        expect: int = 0,
        content_type: str = "application/octet-stream",
    ) -> Mapping[str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": content_type}
        if self.private:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            words = answer.read()
        finally:
            connection.close()
        assert not expect or answer.status == expect, f"{method} {path}: {answer.status} {words[:500]!r}"
        return dict(answer.getheaders())


def is_installed() -> bool:
    return shutil.which("docker-registry") is not None


@contextlib.contextmanager
def running_registry(folder: Path, *, private: bool = False) -> Iterator[Registry]:
    """A started registry; killed at the end, its files stay in ``folder``."""
    registry = Registry(folder, private=private)
    registry.start()
    try:
        yield registry
    finally:
        registry.stop()

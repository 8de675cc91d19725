"""Builds a tiny OCI image archive from the machine's static busybox: images without a registry."""

import gzip
import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

APPLETS = (
    "sh",
    "sleep",
    "echo",
    "cat",
    "true",
    "false",
    "env",
    "id",
    "hostname",
    "ls",
    "kill",
    "trap",
    "grep",
    "touch",
)


MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Image:
    """An image as its blobs (by hexadecimal SHA-256), and the bytes of its manifest."""

    blobs: dict[str, bytes]
    manifest: bytes

    @property
    def digest(self) -> str:
        """Digest of the manifest, by which the image can be named."""
        return f"sha256:{hashlib.sha256(self.manifest).hexdigest()}"

    @property
    def layers(self) -> list[str]:
        """Hexadecimal digests of the layers."""
        return [each["digest"].removeprefix("sha256:") for each in json.loads(self.manifest)["layers"]]


def image(
    config: dict[str, Any] | None = None,
    busybox: Path = Path("/bin/busybox"),
    ballast: bytes = b"",
    layer_type: str = LAYER_TYPE,
) -> Image:
    """An image with one layer. ``ballast`` is the content of its file /ballast, if any."""
    layer = _layer(busybox, ballast)
    packed = gzip.compress(layer, compresslevel=1, mtime=0)
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    described = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin:/usr/bin:/sbin"], "Cmd": ["sh"], **(config or {})},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": blob(json.dumps(described).encode(), "application/vnd.oci.image.config.v1+json"),
        "layers": [blob(packed, layer_type)],
    }
    return Image(blobs, json.dumps(manifest).encode())


def build(target: Path, name: str, config: dict[str, Any] | None = None, busybox: Path = Path("/bin/busybox")) -> None:
    """Write an OCI archive (``ctr image import``) with one layer and the reference ``name`` to ``target``."""
    save(target, name, image(config, busybox))


def save(target: Path, name: str, content: Image) -> None:
    """Write ``content`` as an OCI archive with the reference ``name``."""
    described = {
        "mediaType": MANIFEST_TYPE,
        "digest": content.digest,
        "size": len(content.manifest),
        "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
    }
    index = {"schemaVersion": 2, "manifests": [described]}
    with tarfile.open(target, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", json.dumps(index).encode())
        for digest, data in {**content.blobs, content.digest.removeprefix("sha256:"): content.manifest}.items():
            _add(archive, f"blobs/sha256/{digest}", data)


def _layer(busybox: Path, ballast: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as layer:
        for directory in ("bin", "etc", "tmp", "proc", "sys", "dev"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "tmp" else 0o755
            layer.addfile(entry)
        _add(layer, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(entry)
        _add(layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/:/bin/sh\n")
        if ballast:
            _add(layer, "ballast", ballast)
        _add(layer, "etc/group", b"root:x:0:\napp:x:1001:\nextra:x:2000:app\n")
    return out.getvalue()


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))

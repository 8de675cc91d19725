"""OCI archives: write one from a directory, and check one before it is loaded. Reproducible: same tree, same bytes."""

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from common.errors import Terminal

INDEX_BYTES_MAX: Final = 4 << 20
_MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"


def write(target: Path, root: Path, name: str, architecture: str, config: Mapping[str, Any]) -> None:
    """Write an OCI archive with one layer, the tree at ``root``. ``config`` is the OCI image's ``config`` object."""
    layer = target.with_suffix(".layer")
    _pack(layer, root)
    layer_digest, layer_size = _digest_file(layer)
    image = {
        "architecture": architecture,
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "sphere, from Debian packages"}],
    }
    image_blob = _json(image)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "config": _descriptor("application/vnd.oci.image.config.v1+json", image_blob),
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer_size}],
    }
    manifest_blob = _json(manifest)
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rsplit(":", 1)[-1]}
    index = {
        "schemaVersion": 2,
        "manifests": [{**_descriptor(_MANIFEST_TYPE, manifest_blob), "annotations": annotations}],
    }
    draft = target.with_suffix(".new")
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as out:
        _add(out, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(out, "index.json", _json(index))
        for blob in (image_blob, manifest_blob):
            _add(out, _blob_path(_digest(blob)), blob)
        entry = tarfile.TarInfo(_blob_path(layer_digest))
        entry.size, entry.mode = layer_size, 0o644
        with layer.open("rb") as content:
            out.addfile(entry, content)
    layer.unlink()
    draft.replace(target)


def _pack(layer: Path, root: Path) -> None:
    paths = sorted(Path(directory) / name for directory, dirs, files in os.walk(root) for name in (*dirs, *files))
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as out:
        for path in paths:
            entry = out.gettarinfo(path, str(path.relative_to(root)))
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mtime = 0
            if stat.S_ISREG(path.lstat().st_mode):
                # Hard links of packages become copies: which name is the link would hang on the order of unpacking.
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
                with path.open("rb") as content:
                    out.addfile(entry, content)
            else:
                out.addfile(entry)


def whole_name(name: str) -> str:
    """``name`` with registry and tag, as pods' images are looked up: ``app`` is ``docker.io/library/app:latest``."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif first != "localhost" and not {".", ":"} & set(first):
        name = f"docker.io/{name}"
    tagged = ":" in name.rpartition("/")[2] or "@" in name
    return name if tagged else f"{name}:latest"


def image_names(path: Path) -> tuple[str, ...]:
    """Names under which containerd stores the images of an OCI or docker archive: those of an OCI archive are taken
    as they are written, those of a docker archive are made whole. Raises ``Terminal`` when ``path`` is neither, or
    cut short."""
    try:
        with tarfile.open(path) as archive:
            members = {member.name.removeprefix("./"): member for member in archive}
            if "index.json" in members:
                names = _oci_names(json.loads(_read(archive, members["index.json"])), members, archive)
            elif "manifest.json" in members:
                manifests = json.loads(_read(archive, members["manifest.json"]))
                for one in manifests:
                    _require(members, [one["Config"], *one["Layers"]])
                names = [whole_name(tag) for one in manifests for tag in one.get("RepoTags") or []]
            else:
                raise Terminal(
                    f"{path} is a tar file, but neither an OCI nor a docker archive (no index.json, no manifest.json); "
                    "make one with `docker save`, `podman save` or `skopeo copy`"
                )
    except FileNotFoundError:
        raise Terminal(f"no such file: {path}") from None
    except tarfile.ReadError as err:
        # Its message lists every compression that was tried; only a short one says something.
        why = "it ends too early" if "unexpected end" in str(err) else "it is not a tar file"
        raise Terminal(f"{path} is not a whole image archive ({why}); save or copy it again") from err
    except (tarfile.TarError, OSError, EOFError, ValueError, KeyError, TypeError) as err:
        raise Terminal(f"{path} is not a whole image archive ({err}); save or copy it again") from err
    if not names:
        raise Terminal(f"no image in {path} has a name; save it by name, for example `docker save NAME:TAG`")
    nameless = [name for name in names if not {"/", ":", "@"} & set(name)]
    if nameless:
        raise Terminal(
            f"an image in {path} has the tag {nameless[0]!r} and no name; save it by its whole name, for example "
            f"`skopeo copy SOURCE oci-archive:{path.name}:docker.io/library/NAME:{nameless[0]}`"
        )
    return tuple(names)


def _oci_names(index: Any, members: Mapping[str, tarfile.TarInfo], archive: tarfile.TarFile) -> list[str]:
    names = []
    for descriptor in index["manifests"]:
        blob = _blob_path(descriptor["digest"])
        _require(members, [blob])
        manifest = json.loads(_read(archive, members[blob]))
        parts = [part["digest"] for part in manifest.get("layers", [])]
        if "config" in manifest:
            parts.append(manifest["config"]["digest"])
        _require(members, [_blob_path(digest) for digest in parts])
        annotations = descriptor.get("annotations") or {}
        name = annotations.get("io.containerd.image.name") or annotations.get("org.opencontainers.image.ref.name")
        if name:
            names.append(name)
    return names


def _require(members: Mapping[str, tarfile.TarInfo], paths: list[str]) -> None:
    for path in paths:
        if path not in members:
            raise ValueError(f"{path} is missing")


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    content = archive.extractfile(member)
    if content is None or member.size > INDEX_BYTES_MAX:
        raise ValueError(f"{member.name} is not a small file")
    return content.read()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _digest_file(path: Path) -> tuple[str, int]:
    with path.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}", path.stat().st_size


def _descriptor(media_type: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(blob), "size": len(blob)}


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add(out: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    out.addfile(entry, io.BytesIO(content))

"""Image archives: what we write is whole and reproducible, what is broken is refused with its reason."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from common.errors import Terminal
from sphere.images import archive

NAME = "docker.io/library/thing:latest"


def _tree(root: Path) -> Path:
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "tool").write_bytes(b"\x7fELF" + bytes(5000))
    (root / "bin" / "tool").chmod(0o755)
    (root / "bin" / "alias").symlink_to("tool")
    return root


def _write(path: Path, root: Path) -> Path:
    archive.write(path, root, NAME, "amd64", {"Cmd": ["tool"]})
    return path


def test_names_are_found(tmp_path: Path) -> None:
    assert archive.image_names(_write(tmp_path / "a.tar", _tree(tmp_path / "root"))) == (NAME,)


def test_same_tree_same_bytes(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.tar", _tree(tmp_path / "one"))
    root = _tree(tmp_path / "two")
    os.utime(root / "bin" / "tool", (1, 1))
    assert _write(tmp_path / "b.tar", root).read_bytes() == first.read_bytes()


def test_nothing_but_the_archive_is_left(tmp_path: Path) -> None:
    _write(tmp_path / "out" / "a.tar" if (tmp_path / "out").mkdir() is None else tmp_path, _tree(tmp_path / "root"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.tar"]


def test_docker_archive(tmp_path: Path) -> None:
    path = tmp_path / "docker.tar"
    _tar(path, {"manifest.json": [{"Config": "c", "Layers": ["l"], "RepoTags": ["app:1"]}], "c": {}, "l": {}})
    assert archive.image_names(path) == ("docker.io/library/app:1",)


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("app", "docker.io/library/app:latest"),
        ("app:1", "docker.io/library/app:1"),
        ("team/app:1", "docker.io/team/app:1"),
        ("quay.io/team/app", "quay.io/team/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("app@sha256:00", "docker.io/library/app@sha256:00"),
    ],
)
def test_names_are_made_whole_as_pods_mean_them(name: str, whole: str) -> None:
    assert archive.whole_name(name) == whole
    assert archive.whole_name(whole) == whole


def _renamed(path: Path, annotations: dict[str, str], target: Path) -> Path:
    """The OCI archive ``path`` with other annotations of its only image."""
    with tarfile.open(path) as source, tarfile.open(target, "w") as out:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            blob = content.read()
            if member.name == "index.json":
                index = json.loads(blob)
                index["manifests"][0]["annotations"] = annotations
                blob = json.dumps(index).encode()
                member.size = len(blob)
            out.addfile(member, io.BytesIO(blob))
    return target


def test_a_tag_is_no_name(tmp_path: Path) -> None:
    made = _write(tmp_path / "a.tar", _tree(tmp_path / "root"))
    tag = {"org.opencontainers.image.ref.name": "latest"}
    with pytest.raises(Terminal, match=r"the tag 'latest' and no name; save it by its whole name"):
        archive.image_names(_renamed(made, tag, tmp_path / "b.tar"))
    # docker buildx writes both.
    both = {**tag, "io.containerd.image.name": "docker.io/library/app:latest"}
    assert archive.image_names(_renamed(made, both, tmp_path / "c.tar")) == ("docker.io/library/app:latest",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"file": {}}, "neither an OCI nor a docker archive"),
        ({"manifest.json": [{"Config": "c", "Layers": ["lost"], "RepoTags": ["app:1"]}], "c": {}}, "lost is missing"),
        ({"manifest.json": [{"Config": "c", "Layers": [], "RepoTags": None}], "c": {}}, "has a name"),
        ({"index.json": {"manifests": [{"digest": "sha256:00"}]}}, "blobs/sha256/00 is missing"),
        ({"index.json": []}, "not a whole image archive"),
    ],
)
def test_broken_archives(tmp_path: Path, content: dict[str, object], words: str) -> None:
    path = tmp_path / "broken.tar"
    _tar(path, content)
    with pytest.raises(Terminal, match=words):
        archive.image_names(path)


@pytest.mark.parametrize("cut", [0, 100, 5000])
def test_an_archive_that_was_cut_short(tmp_path: Path, cut: int) -> None:
    path = _write(tmp_path / "a.tar", _tree(tmp_path / "root"))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Terminal, match=r"a\.tar"):
        archive.image_names(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="no such file"):
        archive.image_names(tmp_path / "none.tar")


def _tar(path: Path, content: dict[str, object]) -> None:
    with tarfile.open(path, "w") as out:
        for name, value in content.items():
            blob = json.dumps(value).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(blob)
            out.addfile(entry, io.BytesIO(blob))

"""Build an image from Debian packages: ``apt-get download``, ``dpkg-deb -x``, pack. Cached in ``build/``."""

import fnmatch
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

from common.errors import Terminal
from sphere.commands import run, succeeds
from sphere.images import archive
from sphere.images.recipes import DOCUMENTS, Recipe
from sphere.layout import PROJECT

CACHE = PROJECT / "build"
DOWNLOAD_TIMEOUT_S = 300.0
_OCI_ARCHITECTURES = {"amd64": "amd64", "arm64": "arm64", "armhf": "arm", "ppc64el": "ppc64le", "s390x": "s390x"}


def ensure(recipe: Recipe) -> Path:
    """Path of the image's archive; built only when the recipe, its sources or this code changed."""
    target = CACHE / "images" / f"{recipe.file}.tar"
    stamp = target.with_suffix(".stamp")
    key = _key(recipe)
    if target.exists() and stamp.exists() and stamp.read_text() == key:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    packages = _download(recipe.packages)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        root = Path(scratch) / "root"
        _assemble(recipe, packages, root)
        architecture = run(["dpkg", "--print-architecture"]).strip()
        archive.write(target, root, recipe.name, _OCI_ARCHITECTURES.get(architecture, architecture), recipe.config)
    stamp.write_text(key)
    return target


def _key(recipe: Recipe) -> str:
    digest = hashlib.sha256(repr(recipe).encode())
    sources = [Path(__file__), Path(archive.__file__)]
    for tree in recipe.trees.values():
        sources += [path for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    for path in sorted(sources):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _download(names: tuple[str, ...]) -> list[Path]:
    """Archives of the packages, in the order of ``names``; what the cache has is not fetched again."""
    cache = CACHE / "debs"
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if _cached(cache, name) is None]
    if missing:
        command = ["env", "-C", str(cache), "apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *missing]
        if not succeeds(command, DOWNLOAD_TIMEOUT_S):
            # The package lists are missing, or older than what the archive still has.
            run(["apt-get", "-qq", "update"], timeout_s=DOWNLOAD_TIMEOUT_S)
            run(command, timeout_s=DOWNLOAD_TIMEOUT_S)
    found = {name: _cached(cache, name) for name in names}
    lost = [name for name, path in found.items() if path is None]
    if lost:
        raise Terminal(f"apt-get download brought nothing for {', '.join(lost)}; see /etc/apt/sources.list")
    return [path for path in found.values() if path is not None]


def _cached(cache: Path, name: str) -> Path | None:
    return max(cache.glob(f"{name}_*.deb"), default=None, key=lambda path: path.stat().st_mtime)


def _assemble(recipe: Recipe, packages: list[Path], root: Path) -> None:
    root.mkdir()
    for package in packages:
        run(["dpkg-deb", "-x", str(package), str(root)])
    for pattern in (*DOCUMENTS, *recipe.pruned):
        _prune(root, pattern)
    for directory in ("dev", "proc", "sys", "run", "root", "data"):
        (root / directory).mkdir(exist_ok=True)
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    etc = root / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    (etc / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    _link_applets(root)
    for place, tree in recipe.trees.items():
        if not tree.is_dir():
            raise Terminal(f"{tree} is missing; run this from a whole checkout")
        shutil.copytree(tree, root / place, ignore=shutil.ignore_patterns("__pycache__"))
    # Modes of the checkout hang on the umask of whoever cloned it.
    for place in recipe.trees:
        for path in (root / place, *(root / place).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def _prune(root: Path, pattern: str) -> None:
    expression = re.compile(fnmatch.translate(pattern))
    for directory, dirs, files in os.walk(root):
        for name in [*dirs, *files]:
            path = Path(directory) / name
            if not expression.match(str(path.relative_to(root))):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
                dirs.remove(name)
            else:
                path.unlink()


def _link_applets(root: Path) -> None:
    """A symbolic link to busybox for each applet whose name is still free."""
    busybox = root / "bin" / "busybox"
    if not busybox.exists():
        return
    for applet in run([str(busybox), "--list-full"]).split():
        path = root / applet
        if not path.exists() and not path.is_symlink():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to("/bin/busybox")

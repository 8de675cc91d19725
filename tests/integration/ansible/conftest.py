"""A clean Debian tree, and playbooks against it by the connection plugin ``rootfs``.

What is slow to get is cached below build/: the bare tree as an archive, Debian packages, wheels. Nothing is mounted.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from sphere.layout import PROJECT

ANSIBLE = PROJECT / "ansible"
CACHE = PROJECT / "build" / "rootfs"
SUITE = "bookworm"
INCLUDED = ("python3", "python3-apt", "ca-certificates", "systemd")
"""What ansible needs on a machine before its first task, and the folders of systemd."""
CONTROL = "192.0.2.2"
HOST = "192.0.2.11"


def run(command: Sequence[str], *, timeout_s: float = 60, cwd: Path = PROJECT) -> str:
    """Standard output of ``command``; fails the test with all that it said."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    return done.stdout


@dataclass
class Site:
    """An inventory whose machines are all one tree: they share no paths, and it is set up in half the time."""

    tree: Path
    inventory: Path

    def play(self, *arguments: str, timeout_s: float = 480) -> dict[str, dict[str, int]]:
        """Run site.yml; the recap: machine -> counts of ok, changed, failed ..."""
        command = ["ansible-playbook", "-i", str(self.inventory), "site.yml", *arguments]
        text = run(["env", "ANSIBLE_NOCOLOR=1", *command], timeout_s=timeout_s, cwd=ANSIBLE)
        recap = text.split("PLAY RECAP")[1].splitlines()[1:]
        rows = [line.split(":", 1) for line in recap if ":" in line]
        return {
            name.strip(): {key: int(count) for key, count in (pair.split("=") for pair in counts.split())}
            for name, counts in rows
        }

    def inside(self, *command: str, timeout_s: float = 60) -> str:
        """Run ``command`` in the tree."""
        return run(["env", "-i", "PATH=/usr/sbin:/usr/bin", "chroot", str(self.tree), *command], timeout_s=timeout_s)


def _mirror() -> str:
    """Where this machine gets Debian from."""
    command = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    found = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(f"{SUITE} ")]
    debian = [uri for uri in found if uri.rstrip("/").endswith("/debian")]
    return debian[0] if debian else "http://deb.debian.org/debian"


def _apt_network_settings() -> str:
    """How this machine's apt reaches the mirror (proxies, certificates), for the tree's apt."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True, timeout=30).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Retries")
    return "".join(f"{line}\n" for line in dump.splitlines() if line.startswith(wanted) and not line.endswith('"";'))


def _bare_tree() -> Path:
    """The archive of a bare tree; made when it is not there."""
    archive = CACHE / f"{SUITE}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    draft, packed = CACHE / f"{SUITE}.tree", archive.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        run(
            ["debootstrap", "--variant=minbase", f"--include={','.join(INCLUDED)}", SUITE, str(draft), _mirror()],
            timeout_s=280,
        )
        (draft / "etc/apt/apt.conf.d/90network").write_text(_apt_network_settings())
        run(["chroot", str(draft), "apt-get", "-qq", "update"], timeout_s=120)
        run(["chroot", str(draft), "apt-get", "clean"])
        run(["tar", "-C", str(draft), "-cf", str(packed), "."], timeout_s=120)
        packed.rename(archive)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return archive


@pytest.fixture(scope="session")
def wheelhouse() -> Path:
    """The project and its dependencies as wheels."""
    run([sys.executable, "sphere/install/wheelhouse.py"], timeout_s=280)
    return PROJECT / "build" / "wheelhouse"


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clean Debian of this test run, in which packages start no services."""
    root = tmp_path_factory.mktemp("rootfs") / "tree"
    root.mkdir()
    run(["tar", "-C", str(root), "-xf", str(_bare_tree())], timeout_s=120)
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    for name in ("resolv.conf", "hosts"):
        shutil.copyfile(Path("/etc", name), root / "etc" / name)
    packages, archives = CACHE / "packages", root / "var/cache/apt/archives"
    packages.mkdir(parents=True, exist_ok=True)
    _share(packages, archives)
    yield root
    _share(archives, packages)
    shutil.rmtree(root)


def _share(source: Path, target: Path) -> None:
    """Packages of ``source`` that ``target`` lacks; the same files, where both are on one file system."""
    for package in source.glob("*.deb"):
        there = target / package.name
        if not there.exists():
            try:
                os.link(package, there)
            except OSError:
                shutil.copy2(package, there)


@pytest.fixture(scope="session")
def site(tree: Path, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A whole inventory on the one tree."""
    if os.geteuid() != 0:
        pytest.skip("needs root: chroot")
    folder = tmp_path_factory.mktemp("inventory")
    pki = folder / "pki"
    machines = ("--control", f"control={CONTROL}", "--host", f"host-1={HOST}")
    run([sys.executable, "-m", "sphere", "pki", "issue", str(pki), *machines])
    inventory = yaml.safe_load((ANSIBLE / "inventory.example/hosts.yml").read_text())
    variables = yaml.safe_load((ANSIBLE / "inventory.example/group_vars/all.yml").read_text())
    groups = inventory["all"]["children"]
    groups["node"]["hosts"] = {"host-1": {"sphere_address": HOST}}
    variables |= {
        "ansible_connection": "rootfs",
        "ansible_host": str(tree),
        "ansible_become": False,
        "ansible_python_interpreter": "/usr/bin/python3",
        "sphere_pki_dir": str(pki),
        "sphere_wheelhouse": str(wheelhouse),
    }
    for group in groups.values():
        for machine in group["hosts"].values():
            (machine or {}).pop("ansible_host", None)
    (folder / "group_vars").mkdir()
    (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
    (folder / "group_vars/all.yml").write_text(yaml.safe_dump(variables))
    return Site(tree, folder / "hosts.yml")


@pytest.fixture(scope="session")
def deployed(site: Site) -> Site:
    """The whole playbook has run once."""
    recap = site.play()
    assert all(counts["failed"] == counts["unreachable"] == 0 for counts in recap.values())
    assert all(counts["changed"] > 0 for counts in recap.values())
    return site

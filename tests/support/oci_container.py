"""A real container under conmon and crun, made of busybox, without the rest of spherelet."""

import contextlib
import json
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spherelet.model import ContainerState, Exit

APPLETS = ("sh", "cat", "echo", "sleep", "true", "stty", "nc", "seq")


def crun(root: Path) -> tuple[str, ...]:
    """The runtime's command line; cgroups are left alone, so that tests need none."""
    return ("/usr/bin/crun", f"--root={root}", "--cgroup-manager=disabled")


def config(argv: Sequence[str], *, tty: bool, netns: Path | None) -> dict[str, object]:
    """A small OCI config."""
    network = {"type": "network"} if netns is None else {"type": "network", "path": str(netns)}
    return {
        "ociVersion": "1.0.0",
        "process": {
            "terminal": tty,
            "user": {"uid": 0, "gid": 0},
            "args": list(argv),
            "env": ["PATH=/bin", "GREETING=hello"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666"],
            },
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}, network]},
    }


@contextlib.contextmanager
def container(
    directory: Path, argv: Sequence[str], *, tty: bool = False, stdin: bool = False, netns: Path | None = None
) -> Iterator[ContainerState]:
    """Run ``argv`` and yield its state; everything is removed afterwards."""
    name = uuid.uuid4().hex
    bundle, root = directory / "bundle", directory / "crun"
    (bundle / "rootfs" / "bin").mkdir(parents=True)
    for each in ("proc", "dev", "tmp"):
        (bundle / "rootfs" / each).mkdir()
    shutil.copy("/usr/bin/busybox", bundle / "rootfs" / "bin" / "busybox")
    for applet in APPLETS:
        (bundle / "rootfs" / "bin" / applet).symlink_to("busybox")
    (bundle / "config.json").write_text(json.dumps(config(argv, tty=tty, netns=netns)))
    runtime = crun(root)
    command = [
        *("/usr/bin/conmon", "--api-version", "1", "-c", name, "-u", name, "-n", "test", "-b", str(bundle)),
        *("-p", str(bundle / "pid"), "-P", str(bundle / "conmon-pid"), "-l", f"k8s-file:{bundle / 'log'}"),
        *("--full-attach", "-r", runtime[0], "--exit-dir", str(directory)),
    ]
    for option in runtime[1:]:
        command += ["--runtime-arg", option]
    command += ["-t"] * tty + ["-i"] * stdin
    subprocess.run(command, check=True, timeout=20, stdin=subprocess.DEVNULL)
    state = ContainerState(
        pod_uid="uid-1", name="main", attempt=0, id=name, directory=bundle, image="busybox", image_id="",
        handler="crun", created_at=time.time(), netns=netns,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 10
        while not (bundle / "pid").exists() or not (bundle / "pid").read_text():
            assert time.monotonic() < deadline, "the container was not created"
            time.sleep(0.01)
        subprocess.run([*runtime, "start", name], check=True, timeout=20)
        yield replace(state, pid=int((bundle / "pid").read_text()), started_at=time.time())
    finally:
        subprocess.run([*runtime, "delete", "--force", name], timeout=20, check=False)
        deadline = time.monotonic() + 10
        conmon = Path("/proc") / (bundle / "conmon-pid").read_text().strip()
        while conmon.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def ended(state: ContainerState, code: int = 0) -> ContainerState:
    """``state`` after its end."""
    return replace(state, pid=0, exit=Exit(code, time.time(), "Completed"))

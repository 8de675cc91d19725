"""The floor of a pod start: a network namespace, an overlay mount, conmon, an OCI runtime; nothing else.

Runs inside a host (``python3 -m tests.bench.bare_pod``), standard library only, and prints the seconds from the first
system call to the container's process running.
"""

import ctypes
import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

IMAGE = "docker.io/library/busybox:latest"
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
MNT_DETACH = 2
CONMON, RUNTIME = "/usr/bin/conmon", shutil.which("crun") or "/usr/bin/runc"
libc = ctypes.CDLL(None, use_errno=True)


def _spec(rootfs: Path, cgroup: str) -> dict[str, object]:
    return {
        "ociVersion": "1.0.2",
        "process": {
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sleep", "600"],
            "env": ["PATH=/bin:/usr/bin"],
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs)},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        ],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [
                *({"type": kind} for kind in ("pid", "mount", "ipc", "uts")),
                {"type": "network", "path": f"/proc/{os.getpid()}/ns/net"},
            ],
        },
    }


def _image_root(base: Path) -> Path:
    """A root file system with busybox, made before the clock starts."""
    lower = base / "lower"
    for folder in ("bin", "proc", "dev", "sys"):
        (lower / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", lower / "bin/busybox")
    (lower / "bin/sleep").symlink_to("busybox")
    return lower


def measure() -> float:
    """Seconds of one bare start; everything is removed again."""
    base = Path(tempfile.mkdtemp(prefix="sphere-bare-"))
    name = f"bare-{uuid.uuid4().hex[:8]}"
    lower = _image_root(base)
    for folder in ("upper", "work", "rootfs"):
        (base / folder).mkdir()
    runtime = [RUNTIME, f"--root={base / 'runtime'}"]
    libc.unshare(CLONE_NEWNS)
    libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE: the mount below stays in here
    started = time.monotonic()
    libc.unshare(CLONE_NEWNET)
    options = f"lowerdir={lower},upperdir={base / 'upper'},workdir={base / 'work'}".encode()
    if libc.mount(b"overlay", str(base / "rootfs").encode(), b"overlay", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "overlay mount failed")
    (base / "config.json").write_text(json.dumps(_spec(base / "rootfs", f"/sphere/{os.uname().nodename}/{name}")))
    ready, synced = os.pipe()
    os.set_inheritable(synced, True)
    monitor = [
        *(CONMON, "--cid", name, "--cuuid", name, "--name", name, "--bundle", str(base)),
        *("--runtime", RUNTIME, "--runtime-arg", f"--root={base / 'runtime'}"),
        *("--container-pidfile", str(base / "pid"), "--log-path", f"k8s-file:{base / 'log'}"),
        *("--persist-dir", str(base), "--full-attach", "--no-sync-log"),
    ]
    process = subprocess.Popen(monitor, env={**os.environ, "_OCI_SYNCPIPE": str(synced)}, pass_fds=[synced])
    os.close(synced)
    with os.fdopen(ready) as answers:
        answer = json.loads(answers.readline())
        if answer.get("data", answer.get("pid", -1)) <= 0:
            raise RuntimeError(f"conmon: {answer}")
        subprocess.run([*runtime, "start", name], check=True)
        seconds = time.monotonic() - started
    subprocess.run([*runtime, "delete", "--force", name], check=True)
    process.wait(10)
    libc.umount2(str(base / "rootfs").encode(), MNT_DETACH)
    shutil.rmtree(base)
    return seconds


if __name__ == "__main__":
    print(json.dumps({"seconds": measure()}))

"""Make a machine: enter its network namespace, give it mount, PID and UTS namespaces, and become its supervisor.

Usage: ``python -E -s -S -m sphere.supervisor.launch SPEC``. SPEC is the supervisor's, with these more keys:
``machine`` (name), ``control_socket`` and ``netns`` (paths), ``cgroup`` (path below each hierarchy), ``listen``
(``[[address, port]...]``, opened in the caller's network namespace), ``binds`` (``{source: target}``), ``hugetlb_v1``
(see ``_mount_cgroups``).
Prints the supervisor's PID and returns once the machine runs.
"""

import ctypes
import json
import os
import socket
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x4000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 8192, 16384, 1 << 18
MNT_DETACH = 2
LISTEN_BACKLOG = 512

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    arguments = [None if text is None else text.encode() for text in (source, target, kind, data)]
    result = _libc.mount(arguments[0], arguments[1], arguments[2], ctypes.c_ulong(flags), arguments[3])
    _check(result, f"mount {source} on {target}")


def _open_sockets(listen: list[tuple[str, int]]) -> list[int]:
    """Listening sockets in the network namespace we were started in; they outlive each restart of their user."""
    fds = []
    for address, port in listen:
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
        except OSError as err:
            raise SystemExit(
                f"cannot listen on {address}:{port}: {err.strerror}; stop what listens there "
                f"(`ss -ltnp 'sport = :{port}'` names it)"
            ) from None
        server.listen(LISTEN_BACKLOG)
        os.set_inheritable(server.fileno(), True)
        fds.append(server.detach())
    return fds


def _open_control(path: str) -> int:
    """The supervisor's own socket, opened before it runs, so that nobody has to wait for it.

    Bound through a directory descriptor: the path of a socket is limited to 108 bytes.
    """
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    name = f"/proc/self/fd/{directory}/{os.path.basename(path)}"
    try:
        if os.path.exists(name):
            os.unlink(name)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        server.bind(name)
        os.chmod(name, 0o600)
        server.listen(16)
        os.set_inheritable(server.fileno(), True)
        return server.detach()
    finally:
        os.close(directory)


def _join_cgroups(path: str) -> None:
    """Move this process to ``path`` in every mounted hierarchy (version 1, hybrid or 2)."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        roots = [line.split()[1] for line in mounts if line.split()[2] in ("cgroup", "cgroup2")]
    for root in roots:
        directory = root + path
        os.makedirs(directory, exist_ok=True)
        # A version 1 cpuset takes no process before it has processors and memory nodes.
        if os.path.exists(f"{directory}/cpuset.cpus") and not os.path.exists(f"{directory}/cgroup.controllers"):
            _inherit_cpuset(root, path)
        with open(f"{directory}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write("0")


def _inherit_cpuset(root: str, path: str) -> None:
    directory = root
    for part in path.strip("/").split("/"):
        parent, directory = directory, f"{directory}/{part}"
        for name in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{parent}/{name}", encoding="ascii") as file:
                value = file.read()
            with open(f"{directory}/{name}", "w", encoding="ascii") as file:
                file.write(value)


def _mount_cgroups(hugetlb_v1: bool) -> None:
    """A sysfs of the machine's own network namespace, with the cgroup hierarchies of the box below it.

    On version 1, crun needs the hugetlb controller mounted as version 1 too; it is mounted here, inside, so that the
    box's own mounts stay as they are.
    """
    staging = "/run/cgroup-staging"
    os.mkdir(staging)
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        _mount("/sys/fs/cgroup", staging, None, MS_BIND)
    else:
        _mount("cgroup", staging, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
        for name in sorted(os.listdir("/sys/fs/cgroup")):
            source = f"/sys/fs/cgroup/{name}"
            if os.path.islink(source):
                os.symlink(os.readlink(source), f"{staging}/{name}")
            elif os.path.ismount(source):
                os.mkdir(f"{staging}/{name}")
                _mount(source, f"{staging}/{name}", None, MS_BIND)
        if hugetlb_v1 and not os.path.exists(f"{staging}/hugetlb"):
            os.mkdir(f"{staging}/hugetlb")
            _mount("cgroup", f"{staging}/hugetlb", "cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hugetlb")
    _check(_libc.umount2(b"/sys", MNT_DETACH), "detach the box's /sys")
    _mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _mount(staging, "/sys/fs/cgroup", None, MS_MOVE)
    os.rmdir(staging)


def _detach_below(directory: str) -> None:
    """Give up our copies of the mounts there: a copy of ``/run/netns/NAME`` would keep that namespace alive."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        targets = [line.split()[1] for line in mounts]
    for target in reversed(targets):
        if target.startswith(directory + "/"):
            _libc.umount2(target.encode(), MNT_DETACH)


def _build(spec: dict) -> None:  # type: ignore[type-arg]
    """Inside the new namespaces, as PID 1: mounts, host name, cgroups."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _detach_below("/run")
    _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir("/run/lock")
    _mount_cgroups(spec["hugetlb_v1"])
    for source, target in spec["binds"].items():
        _mount(source, target, None, MS_BIND)
    _join_cgroups(spec["cgroup"])
    socket.sethostname(spec["machine"])


def main() -> None:
    """Entry point. Exit status 1 with one line on standard error when the machine cannot be made."""
    path = sys.argv[1]
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    sockets = _open_sockets(spec["listen"])
    netns = os.open(spec["netns"], os.O_RDONLY)
    _check(_libc.setns(netns, CLONE_NEWNET), "enter the network namespace")
    os.close(netns)
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID), "make namespaces")
    # The pipe closes by itself when the child executes the supervisor: until then it carries the reason of a failure.
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            _build(spec)
            console = os.open(f"{spec['log_dir']}/supervisor.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            for fd in (1, 2):
                os.dup2(console, fd)
            control = _open_control(spec["control_socket"])
            module = ["-E", "-s", "-S", "-m", "sphere.supervisor"]
            argv = [sys.executable, *module, path, *map(str, (control, *sockets))]
            os.execv(sys.executable, argv)
        except BaseException as err:
            os.write(writer, str(err).encode())
            os._exit(1)
    os.close(writer)
    failure = os.read(reader, 4096)
    if failure:
        raise SystemExit(failure.decode())
    print(pid)


if __name__ == "__main__":
    main()

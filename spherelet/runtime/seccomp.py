"""The seccomp profile ``RuntimeDefault``: what an unprivileged container has no business calling is refused. Pure.

A deny list on top of allow: it blocks system calls that reach the kernel's own state (modules, keys, time, mounts,
tracing other processes, new namespaces), unless the capability that governs the call was granted. The list follows
what Docker and containerd refuse by default.
"""

from typing import Any, Final

from common.errors import Terminal

ALWAYS: Final = (
    "add_key",
    "get_kernel_syms",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "keyctl",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "query_module",
    "request_key",
    "swapoff",
    "swapon",
    "sysfs",
    "_sysctl",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
)
BY_CAPABILITY: Final = {
    "CAP_SYS_ADMIN": (
        "bpf",
        "fanotify_init",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "lookup_dcookie",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "quotactl",
        "quotactl_fd",
        "setdomainname",
        "sethostname",
        "setns",
        "umount",
        "umount2",
        "unshare",
    ),
    "CAP_SYS_BOOT": ("reboot", "kexec_load", "kexec_file_load"),
    "CAP_SYS_MODULE": ("create_module", "delete_module", "finit_module", "init_module"),
    "CAP_SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_RAWIO": ("iopl", "ioperm"),
    "CAP_SYS_TIME": ("clock_settime", "settimeofday", "stime", "adjtimex", "clock_adjtime"),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at", "name_to_handle_at"),
    "CAP_SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev"),
}
EPERM, ENOSYS = 1, 38
AF_VSOCK: Final = 40
"""Sockets of this family reach the hypervisor past every network namespace."""
NAMESPACE_FLAGS: Final = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
"""``CLONE_NEW*`` of mount, cgroup, uts, ipc, user, pid, net: what ``unshare`` may not do, ``clone`` may not either."""


def profile(kind: str, capabilities: set[str]) -> dict[str, Any] | None:
    """``linux.seccomp`` of profile ``kind``; None for ``Unconfined``. Raises ``Terminal`` for one that is not there."""
    if kind == "Unconfined":
        return None
    if kind != "RuntimeDefault":
        raise Terminal(f"seccompProfile type {kind} is not supported on this host; use RuntimeDefault or Unconfined")
    names = list(ALWAYS)
    for capability, calls in BY_CAPABILITY.items():
        if capability not in capabilities:
            names += calls
    rules = [_refuse(sorted(names)), _refuse(["socket"], args=[_argument(0, AF_VSOCK, "SCMP_CMP_EQ")])]
    if "CAP_SYS_ADMIN" not in capabilities:
        rules += [_refuse(["clone"], args=[_argument(0, flag, "SCMP_CMP_MASKED_EQ", flag)]) for flag in NAMESPACE_FLAGS]
        # Its flags lie in memory, where no filter can read them: as if it did not exist, and libc falls back on clone.
        rules.append(_refuse(["clone3"], ENOSYS))
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }


def _refuse(names: list[str], errno: int = EPERM, args: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
    return {**rule, "args": args} if args else rule


def _argument(index: int, value: int, op: str, value_two: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": value_two, "op": op}

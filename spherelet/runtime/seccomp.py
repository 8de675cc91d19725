"""The seccomp profile ``RuntimeDefault``: what an unprivileged container has no business calling is refused. Pure.

A deny list on top of allow: it blocks system calls that reach the kernel's own state (modules, keys, time, mounts,
tracing other processes, new namespaces), unless the capability that governs the call was granted.
"""

from typing import Any

ALWAYS = (
    "acct",
    "add_key",
    "get_kernel_syms",
    "get_mempolicy",
    "kcmp",
    "keyctl",
    "mbind",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "query_module",
    "request_key",
    "set_mempolicy",
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
BY_CAPABILITY = {
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
        "setdomainname",
        "sethostname",
        "setns",
        "umount",
        "umount2",
        "unshare",
    ),
    "CAP_SYS_BOOT": ("reboot", "kexec_load", "kexec_file_load"),
    "CAP_SYS_MODULE": ("create_module", "delete_module", "finit_module", "init_module"),
    "CAP_SYS_RAWIO": ("iopl", "ioperm"),
    "CAP_SYS_TIME": ("clock_settime", "settimeofday", "stime", "adjtimex", "clock_adjtime"),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at", "name_to_handle_at"),
    "CAP_SYS_PTRACE": ("process_vm_readv", "process_vm_writev"),
}
EPERM = 1


def profile(kind: str, capabilities: set[str]) -> dict[str, Any] | None:
    """``linux.seccomp`` of profile ``kind``; None for ``Unconfined``."""
    if kind != "RuntimeDefault":
        return None
    names = list(ALWAYS)
    for capability, calls in BY_CAPABILITY.items():
        if capability not in capabilities:
            names += calls
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": sorted(names), "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}],
    }

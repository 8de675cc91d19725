"""Defaults of container isolation. Pure data and functions.

Capabilities, masked and read-only paths, devices and default mounts follow the OCI runtime specification and what
Kubernetes documents for an unprivileged container.
"""

from typing import Any

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
    "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
    "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
)
ALL_CAPABILITIES = tuple(f"CAP_{name}" for name in _NAMES.split())
"""In the kernel's order (linux/capability.h): the index is the bit."""
MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def capabilities(wanted: dict[str, Any], available: frozenset[str], *, privileged: bool) -> tuple[str, ...]:
    """Capabilities of a container: the default set, plus ``add``, minus ``drop``, within ``available``."""
    if privileged:
        return tuple(name for name in ALL_CAPABILITIES if name in available)
    added = {_full(name) for name in wanted.get("add") or ()}
    dropped = {_full(name) for name in wanted.get("drop") or ()}
    base = set(ALL_CAPABILITIES if "CAP_ALL" in added else DEFAULT_CAPABILITIES)
    if "CAP_ALL" in dropped:
        base = set()
    result = (base | added) - {"CAP_ALL"} - (dropped - added if "CAP_ALL" in dropped else dropped)
    return tuple(sorted(result & available))


def available(status: str) -> frozenset[str]:
    """Capabilities in the bounding set of ``/proc/self/status`` text: a runtime cannot grant more."""
    line = next((each for each in status.splitlines() if each.startswith("CapBnd:")), "CapBnd: 0")
    mask = int(line.split()[1], 16)
    return frozenset(name for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1)


def _full(name: str) -> str:
    upper = name.upper()
    return upper if upper.startswith("CAP_") else "CAP_" + upper
